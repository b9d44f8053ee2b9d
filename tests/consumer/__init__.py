"""A project that uses the built wheel, for type checkers: ``python -m tests.consumer``."""
