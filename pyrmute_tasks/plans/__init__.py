"""Migration plans: steps between versions, the code generated for them, and fingerprints."""
