"""The size of the next chunk, unless the caller sets it.

A task costs a few milliseconds at any size, so chunks should be large. A window of chunks must fit
into memory, a failure wastes the chunks in flight, and a job's last chunks should end together, so
they should be small. The size goes by bytes first, then towards a second of
work as measured by workers. An explicit ``chunk_size`` bypasses this module.
"""

from typing import Final

from pyrmute_tasks.engine.events import ChunkSettled, Event, SlotsChanged

__all__ = ["ChunkSizer", "RangeSizer", "RecordSizer"]

_TARGET_S: Final = 1.0
_GROWTH: Final = 1.2  # per chunk; the window in flight is then at most four times too large
_WEIGHT: Final = 0.3  # of the newest measurement in the moving average
_IN_WINDOW: Final = 8  # chunks per slot: four inputs, with outputs up to twice as large
_SHARES: Final = 2  # chunks per slot to cut the rest into, so that all slots end together
_LEAST_SHARE_BYTES: Final = 64 * 1024
_FIRST_RANGE_BYTES: Final = 64 * 1024  # a step may take long, and nothing shows before its end
_LEAST_RANGE_BYTES: Final = 1024 * 1024  # each is synced to its disk
_MOST_RANGE_BYTES: Final = 512 * 1024 * 1024
_MOST_SKIPPING_BYTES: Final = 8 * 1024 * 1024  # every record of a range may fail
_LARGE_FLEET_SLOTS: Final = 100
_MOST_TARGET_S: Final = 10.0


class ChunkSizer:
    """Chooses chunk sizes in bytes; an `Observer` of the job it cuts for.

    Args:
        first_bytes: Size of the first chunks.
        most_bytes: Upper bound of the size.
        window_bytes: Size of a window that must hold enough chunks for all slots; 0 for none.
    """

    _growth = _GROWTH
    _shares = _SHARES
    _least_share = _LEAST_SHARE_BYTES

    def __init__(self, first_bytes: int, most_bytes: int, window_bytes: int = 0) -> None:
        self._size: float = first_bytes
        self._most = most_bytes
        self._slots = 1
        self._window_bytes = window_bytes
        self._s_per_byte: float | None = None
        self._cut: dict[int, int] = {}

    @property
    def _target_s(self) -> float:
        return _TARGET_S

    def next_bytes(self, left_bytes: int | None = None) -> int:
        """Return the size of the next chunk.

        Args:
            left_bytes: Bytes left in the source, if known.
        """
        if self._s_per_byte is not None:
            wanted = self._target_s / self._s_per_byte
            self._size = max(1.0, min(wanted, self._size * self._growth, self._most))
        size = int(self._size)
        if self._window_bytes:
            size = min(size, max(self._window_bytes // (_IN_WINDOW * self._slots), 1))
        if left_bytes is not None:
            share = left_bytes // (self._shares * self._slots)
            size = min(size, max(share, self._least_share))
        return size

    def cut(self, chunk: int, size_bytes: int) -> None:
        """Record the size of a chunk."""
        self._cut[chunk] = size_bytes

    def __call__(self, event: Event, /) -> None:
        """Record the number of slots, and the durations of chunks."""
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


class RangeSizer(ChunkSizer):
    """Chooses the lengths of ranges, which take no memory: only time decides.

    Towards a second of work, and towards ten on large fleets, so that one coordinator keeps up.

    Args:
        skips: Whether records that fail are skipped. Their failures do take memory.
    """

    _growth = 4.0
    _shares = 1  # halves of halves: as even at the end, with half as many ranges
    _least_share = _LEAST_RANGE_BYTES

    def __init__(self, *, skips: bool = False) -> None:
        most = min(_MOST_RANGE_BYTES, _MOST_SKIPPING_BYTES) if skips else _MOST_RANGE_BYTES
        super().__init__(_FIRST_RANGE_BYTES, most)

    @property
    def _target_s(self) -> float:
        return min(max(_TARGET_S, _TARGET_S * self._slots / _LARGE_FLEET_SLOTS), _MOST_TARGET_S)


class RecordSizer:
    """Chooses the number of records in a chunk, from their sizes on the wire.

    Args:
        sizer: Chooses the size in bytes.
    """

    _FIRST: Final = 500
    _MOST: Final = 20_000
    _GROWTH: Final = 4  # a few small records must not decide for large ones behind them

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
        """Record the size of a chunk of `count` records."""
        self._record_bytes = max(size_bytes, 1) / count
        self._sizer.cut(chunk, size_bytes)
