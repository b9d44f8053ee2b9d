"""Chunks on a fleet of hosts: the only code that knows Celery, kombu and Redis."""
