"""Executors that run chunks on this machine, without a queue."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from pyrmute_tasks.chunks import Chunk, Outcome

__all__ = ["InlineExecutor", "usable_cpus"]

In = TypeVar("In")
Out = TypeVar("Out")


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InlineExecutor(Generic[In, Out]):
    """Runs chunks in the calling thread, one for each time an outcome is asked for.

    Args:
        run: What turns a chunk into its outcome.
    """

    def __init__(self, run: Callable[[Chunk[In]], Outcome[Out]]) -> None:
        self._run = run
        self._pending: deque[Chunk[In]] = deque()

    def submit(self, chunk: Chunk[In], /) -> None:
        """Queue a chunk."""
        self._pending.append(chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[Out]]:
        """Run the next chunk, if `wait` says that its outcome is needed now."""
        return (self._run(self._pending.popleft()),) if wait else ()

    def cancel(self, first: int) -> None:
        """Drop the queued chunks from index `first` on."""
        self._pending = deque(chunk for chunk in self._pending if chunk.index < first)
