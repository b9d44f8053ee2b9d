"""Fingerprints: hash trees of all code that decides a plan's results, and their differences."""
