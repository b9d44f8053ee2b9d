"""Fingerprints: what decides a plan's results, as a tree of hashes, and how two trees differ."""
