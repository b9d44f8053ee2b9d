"""Jobs as logs of settled ranges: files and decisions, and nothing that runs."""
