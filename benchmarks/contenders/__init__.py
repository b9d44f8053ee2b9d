"""Who migrates: one module each, and each runs alone in a process of its own.

    python -m benchmarks.contenders.limit small --records 100000

prints one line of JSON; see `benchmarks.contenders.contest`.
"""
