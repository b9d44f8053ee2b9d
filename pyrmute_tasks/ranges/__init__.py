"""Ranges of files that workers read and write themselves."""
