"""Labels a job's tasks for Flower, which shows a label in place of a task's arguments."""

from typing import Any, Final

from pyrmute_tasks.engine.chunks import Chunk
from pyrmute_tasks.engine.job_spec import JobSpec

__all__ = ["TaskLabels"]

_GIB: Final = 1024**3
_MIB: Final = 1024**2


class TaskLabels:
    """Labels the tasks of one job; nothing in a label comes from a record.

    Where a task stands in the job comes first, as a column of Flower is rarely wide enough for
    all of it: ``records 421,450–426,356 of 800,000 · Order 1.0.0→3.0.0 · job 2908961f``.

    Args:
        spec: The job.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._job = f" · {spec}"
        self._total = spec.total
        self._size, self._digits, unit = _unit_for(spec.total or 0)
        self._of = "" if spec.total is None else f" of {self._bytes(spec.total)}{unit}"
        self._of_file = self._of if unit else f"{self._of} bytes"

    def __call__(self, chunk: Chunk[Any]) -> str:
        """Return the label of a chunk, or of a part of one."""
        place = self._range(chunk) if chunk.is_range else self._records(chunk)
        return f"{place}{self._job}"

    def _range(self, chunk: Chunk[Any]) -> str:
        last = chunk.start + chunk.count - 1
        return f"bytes {self._bytes(chunk.start)}–{self._bytes(last)}{self._of}"

    def _records(self, chunk: Chunk[Any]) -> str:
        records = f"records {chunk.start:,}–{chunk.start + chunk.count - 1:,}"
        if self._total is None:
            return records
        if chunk.origin is None:
            return f"{records} of {self._total:,}"
        # The records of a file are not counted yet, but its bytes are known.
        share = 100 * chunk.origin.end_byte // max(self._total, 1)
        return f"{records} · {share}%{self._of_file}"

    def _bytes(self, size: int) -> str:
        return f"{size / self._size:,.{self._digits}f}"


def _unit_for(total_bytes: int) -> tuple[int, int, str]:
    """Return a unit's size, its digits behind the point, and its name; bytes for small files."""
    if total_bytes >= _GIB:
        return _GIB, 2, " GiB"
    if total_bytes >= _MIB:
        return _MIB, 1 if total_bytes >= 100 * _MIB else 2, " MiB"
    return 1, 0, ""
