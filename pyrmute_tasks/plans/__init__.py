"""Plans: the steps from one version to another, the code generated for them, fingerprints."""
