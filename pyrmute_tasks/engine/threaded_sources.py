"""Sources that are read in a thread of their own, so that nobody waits for their next record.

A source is read in the thread that consumes its outputs, as in a loop: cursors, sessions and
connections often belong to a thread, some without a word. While such a source blocks, the
consumer does. `in_thread` says of a source that another thread may read it.
"""

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

__all__ = ["ConvertedReader", "ThreadedReader", "ThreadedSource", "in_thread"]

Record = TypeVar("Record")
Item = TypeVar("Item")
Made = TypeVar("Made")

_CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ThreadedSource(Generic[Record]):
    """Records that another thread may read; see `in_thread`.

    Attributes:
        records: The records.
    """

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def in_thread(records: Iterable[Record]) -> ThreadedSource[Record]:
    """Let a thread of its own read `records` while a `Migrator` waits for the next one.

    For sources that block, as queues and services do: what is finished then leaves at once,
    errors too, and chunks that got lost are looked after. Nothing is read beyond the window, and
    one thread does all reading, in a copy of the caller's context. It also closes the source;
    if the source is blocked when the job ends, as soon as it goes on.

    Args:
        records: Must not depend on the thread, as a cursor of sqlite3 or a connection of Django.

    Example:
        ```python
        records = in_thread(consumer.messages())
        for order in migrator.migrate_batch_streaming(records, "Order", "1.0.0", "2.0.0"):
            print(order)
        ```
    """
    return ThreadedSource(records)


@dataclass(frozen=True, slots=True)
class _End:
    """The reading is over."""

    error: BaseException | None


class ThreadedReader(Generic[Item]):
    """Reads an iterator in a thread, one item ahead at the most, when it is asked to.

    Used by one thread. `close` it in the end.

    Args:
        items: Touched by the reading thread alone, which also closes it.
    """

    def __init__(self, items: Callable[[], Generator[Item, None, None]]) -> None:
        self._items = items
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: stop
        self._read: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        self._is_asked = False
        self._end: _End | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="source", daemon=True
        )
        self._thread.start()

    def poll(self, timeout_s: float | None = None) -> Item | None:
        """Return the next item, or None if it is not there in time.

        Raises:
            StopIteration: If there is none.
            BaseException: What the iterator raised.
        """
        if self._end is None and not self._is_asked:
            self._is_asked = True
            self._asked.put(True)
        if self._end is None:
            try:
                read = self._read.get(timeout=timeout_s)
            except queue.Empty:
                return None
            self._is_asked = False
            if not isinstance(read, _End):
                return read
            self._end = read
        if self._end.error is not None:
            raise self._end.error
        raise StopIteration

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        found = self.poll()
        assert found is not None  # without a time there is an item or an exception
        return found

    def close(self) -> None:
        """Let the thread close the iterator; waits a moment, but for no source that blocks."""
        self._asked.put(False)
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        end = _End(None)
        try:
            items = self._items()
            try:
                while self._asked.get():
                    item = next(items, end)
                    self._read.put(item)
                    if item is end:
                        return
            finally:
                items.close()
        except BaseException as error:
            self._read.put(_End(error))


class ConvertedReader(Generic[Made]):
    """What a `ThreadedReader` reads, made into something else in the thread that uses it.

    Args:
        reader: Where items come from.
        convert: Called with each.
        first: One that was read before.
    """

    def __init__(
        self, reader: ThreadedReader[Item], convert: Callable[[Item], Made], first: Item
    ) -> None:
        self._first: list[Any] = [first]
        self._reader: ThreadedReader[Any] = reader
        self._convert: Callable[[Any], Made] = convert

    def poll(self, timeout_s: float | None = None) -> Made | None:
        """Return the next one, or None if it is not there in time; as `ThreadedReader.poll`."""
        item = self._first.pop() if self._first else self._reader.poll(timeout_s)
        return None if item is None else self._convert(item)

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()
