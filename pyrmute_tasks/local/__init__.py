"""Executors for this machine: one process, threads, processes."""
