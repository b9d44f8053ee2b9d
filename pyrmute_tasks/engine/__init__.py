"""The engine: jobs and their pipeline, the window, chunk sizes, events."""
