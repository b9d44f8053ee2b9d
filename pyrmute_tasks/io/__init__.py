"""Files as sources and sinks: the only code that knows formats."""

from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource

__all__ = ["JsonlSink", "JsonlSource"]
