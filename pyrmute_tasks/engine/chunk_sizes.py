"""How large the next chunk is, when the caller does not say.

A task costs a few milliseconds whatever it holds, so chunks want to be large; a window of
them must fit into memory, a failure wastes what is in flight, and at the end of a job the
last ones should end together, so they want to be small. Size goes by bytes first, then
towards a second of work from what workers measured. An explicit ``chunk_size`` never
comes here.
"""

from typing import Final

from pyrmute_tasks.engine.events import ChunkSettled, Event, SlotsChanged

__all__ = ["ChunkSizer", "RecordSizer"]

_TARGET_S: Final = 1.0
_GROWTH: Final = 1.2  # a chunk; the window in flight then is at most four times too large
_WEIGHT: Final = 0.3  # of the newest measurement in the average
_IN_WINDOW: Final = 8  # chunks a slot: four inputs, whose outputs may be twice as large
_SHARES: Final = 2  # what is left, in chunks a slot, so that all slots end together
_LEAST_SHARE_BYTES: Final = 64 * 1024


class ChunkSizer:
    """Chooses chunk sizes in bytes; an `Observer` of the job it cuts for.

    Args:
        first_bytes: Size of the first chunks.
        most_bytes: Size that no time makes it exceed.
        window_bytes: Size of the window that is to hold enough chunks for all slots; 0 if
            there is none.
    """

    def __init__(self, first_bytes: int, most_bytes: int, window_bytes: int = 0) -> None:
        self._size: float = first_bytes
        self._most = most_bytes
        self._slots = 1
        self._window_bytes = window_bytes
        self._s_per_byte: float | None = None
        self._cut: dict[int, int] = {}

    def next_bytes(self, left_bytes: int | None = None) -> int:
        """Return the size of the next chunk.

        Args:
            left_bytes: What is left of the source, if that is known.
        """
        if self._s_per_byte is not None:
            wanted = _TARGET_S / self._s_per_byte
            self._size = max(1.0, min(wanted, self._size * _GROWTH, self._most))
        size = int(self._size)
        if self._window_bytes:
            size = min(size, max(self._window_bytes // (_IN_WINDOW * self._slots), 1))
        if left_bytes is not None:
            share = left_bytes // (_SHARES * self._slots)
            size = min(size, max(share, _LEAST_SHARE_BYTES))
        return size

    def cut(self, chunk: int, size_bytes: int) -> None:
        """Take note of the size that a chunk got."""
        self._cut[chunk] = size_bytes

    def __call__(self, event: Event, /) -> None:
        """Learn how many slots there are, and how long chunks take."""
        if isinstance(event, SlotsChanged):
            self._slots = max(1, event.slots)
        elif isinstance(event, ChunkSettled):
            self._learn(event)

    def _learn(self, event: ChunkSettled) -> None:
        size_bytes = self._cut.pop(event.chunk, 0)
        if not size_bytes or event.failed or event.seconds <= 0:
            return
        measured = event.seconds / size_bytes
        if self._s_per_byte is None:
            self._s_per_byte = measured
        else:
            self._s_per_byte += _WEIGHT * (measured - self._s_per_byte)


class RecordSizer:
    """Chooses how many records a chunk holds, from how large they have been on the wire.

    Args:
        sizer: Chooses the size in bytes.
    """

    _FIRST: Final = 500
    _MOST: Final = 20_000
    _GROWTH: Final = 4  # a few small records must not decide over large ones behind them

    def __init__(self, sizer: ChunkSizer) -> None:
        self._sizer = sizer
        self._size = self._FIRST
        self._record_bytes: float | None = None

    def __call__(self) -> int:
        """Return the size of the next chunk, in records."""
        if self._record_bytes is not None:
            wanted = int(self._sizer.next_bytes() / self._record_bytes)
            self._size = max(1, min(wanted, self._size * self._GROWTH, self._MOST))
        return self._size

    def cut(self, chunk: int, count: int, size_bytes: int) -> None:
        """Learn that a chunk's `count` records took `size_bytes`."""
        self._record_bytes = max(size_bytes, 1) / count
        self._sizer.cut(chunk, size_bytes)
