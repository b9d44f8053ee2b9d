"""Jobs as logs of settled ranges: files and decisions; runs nothing itself."""
