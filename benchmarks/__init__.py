"""Benchmarks of this package and of what people use instead; see ``benchmarks/README.md``."""
