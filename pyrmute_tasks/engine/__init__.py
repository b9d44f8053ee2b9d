"""The pipeline, wherever chunks run: order, window, chunk sizes, events, jobs."""
