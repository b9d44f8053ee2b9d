"""The package's version, for both the build and the fingerprint."""

__version__ = "0.1.0"
