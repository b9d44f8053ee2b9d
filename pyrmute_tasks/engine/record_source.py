"""Records as a source of chunks, and the sink that returns their results."""

from collections.abc import Collection, Generator, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, Final

from pyrmute_tasks.engine.chunk_sizes import ChunkSizer, RecordSizer
from pyrmute_tasks.engine.chunks import (
    Chunk,
    Outcome,
    cut_records,
    decode_records,
    encode_packed,
    pack_each,
)
from pyrmute_tasks.engine.events import Event
from pyrmute_tasks.engine.results import ResultConverter
from pyrmute_tasks.engine.threaded_sources import ConvertedReader, ThreadedReader, ThreadedSource
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.plans.garbage_collection import rare_collections
from pyrmute_tasks.wire.frames import Compression, Frame, FrameKind

__all__ = ["RecordSink", "RecordSource"]

_FIRST_BYTES: Final = 256 * 1024
_MOST_BYTES: Final = 512 * 1024


class RecordSource:
    """Cuts records into chunks of objects frames; closing it closes the records' source.

    Args:
        records: The source, read no further than requested.
        chunk_size: Records a chunk; None chooses it from their size.
        window_bytes: Size of a window that must hold enough chunks for all slots.
        compression: How to compress frames.

    Attributes:
        total: The number of records; None if unknown.
    """

    kind: Final = FrameKind.OBJECTS

    def __init__(
        self,
        records: Iterable[Any],
        chunk_size: int | None,
        window_bytes: int,
        compression: Compression,
    ) -> None:
        # Not of all that has a length: that of a loader counts batches, that of a query runs it.
        self.total: int | None = len(records) if isinstance(records, Collection) else None
        self._sizer = ChunkSizer(_FIRST_BYTES, _MOST_BYTES, window_bytes)
        self._record_sizer = RecordSizer(self._sizer)
        self._compression = compression
        self._first: Chunk[list[bytes]] | None = None
        cut = partial(cut_records, pack_each(records), chunk_size or self._record_sizer)
        self._cut: ThreadedReader[Chunk[list[bytes]]] | Generator[Chunk[list[bytes]], None, None]
        self._cut = ThreadedReader(cut) if isinstance(records, ThreadedSource) else cut()

    def has_records(self) -> bool:
        """Return whether there are any records; reads the first chunk."""
        self._first = next(self._cut, None)
        return self._first is not None

    def chunks(self) -> Iterator[Chunk[bytes]] | ConvertedReader[Chunk[bytes]]:
        """Return the chunks; call `has_records` first."""
        assert self._first is not None
        if isinstance(self._cut, ThreadedReader):
            return ConvertedReader(self._cut, self._encode, self._first)
        return map(self._encode, chain((self._first,), self._cut))

    def _encode(self, chunk: Chunk[list[bytes]]) -> Chunk[bytes]:
        frame = encode_packed(chunk, self._compression)
        self._record_sizer.cut(frame.index, frame.count, frame.size_bytes)
        return frame

    def __call__(self, event: Event, /) -> None:
        """Adapt the size of the next chunks to the job's events."""
        self._sizer(event)

    def close(self) -> None:
        """Close the records' source."""
        self._cut.close()


class RecordSink:
    """Converts migrated data into the results of the call.

    Args:
        converter: Converts the data.
        hooks: The manager's, to merge the workers' counts into.
    """

    def __init__(self, converter: ResultConverter, hooks: HookSet) -> None:
        self._converter = converter
        self._hooks = hooks

    def receive(self, chunk: Chunk[Any], outcome: Outcome[Frame], /) -> Outcome[list[Any]]:
        """Decode a chunk's outputs, and validate them for models."""
        self._hooks.merge(outcome.counts)
        with rare_collections():
            return self._converter.convert(chunk, outcome, decode_records(outcome.outputs))

    def cut(self, outputs: list[Any], count: int, /) -> list[Any]:
        """Return the first results of a chunk."""
        return outputs[:count]
