"""Files as sources and sinks: the only code that knows formats."""

from pyrmute_tasks.io.jsonl import JsonlSource
from pyrmute_tasks.io.output_file import OutputFile, OutputStream, open_output
from pyrmute_tasks.io.rejects import RejectsFile

__all__ = ["JsonlSource", "OutputFile", "OutputStream", "RejectsFile", "open_output"]
