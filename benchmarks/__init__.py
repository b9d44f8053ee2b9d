"""How fast this package is, beside what people use today; see ``benchmarks/README.md``."""
