"""The only code that uses what Celery, kombu, billiard and redis-py do not document.

One module per library, and one per side for Celery. Each wraps what it uses in functions and
classes of our own words, so that no other module names an undocumented attribute; a test scans
them for it. What each use is for, the versions it was tested with and when it can go:
`docs/library-internals.md`.
"""
