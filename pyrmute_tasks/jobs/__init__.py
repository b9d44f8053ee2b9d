"""Durable jobs: the log of settled ranges, its files, and what follows from it; runs nothing."""
