"""Sources read in a thread of their own, so that the consumer never waits for a record.

By default a source is read in the thread that consumes its outputs, as in a loop: cursors,
sessions and connections often belong to a thread, sometimes undocumented. While such a source
blocks, so does the consumer. `in_thread` declares that another thread may read it.
"""

import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pyrmute_tasks.engine.batch_arguments import check_records

__all__ = ["ConvertedReader", "ThreadedReader", "ThreadedSource", "in_thread"]

Record = TypeVar("Record")
Item = TypeVar("Item")
Made = TypeVar("Made")

_CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ThreadedSource(Generic[Record]):
    """Records that another thread may read; made by `in_thread`.

    Attributes:
        records: The records.
    """

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def in_thread(records: Iterable[Record]) -> ThreadedSource[Record]:
    """Read `records` in a thread of their own while a `Migrator` waits for the next one.

    For sources that block, as queues and services do: finished outputs and errors then leave at
    once, and lost chunks are resent. Nothing is read beyond the window, and one thread does all
    reading, in a copy of the caller's context. It also closes the source; if the source blocks
    when the job ends, as soon as it returns.

    Args:
        records: Must not depend on the thread, as a cursor of sqlite3 or a connection of Django.

    Returns:
        The records, to be given to a batch call.

    Raises:
        ConfigurationError: If `records` is a single record or a text.

    Example:
        ```python
        records = in_thread(consumer.messages())
        for order in migrator.migrate_batch_streaming(records, "Order", "1.0.0", "2.0.0"):
            print(order)
        ```
    """
    check_records(records)
    return ThreadedSource(records)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the items."""

    error: BaseException | None


class ThreadedReader(Generic[Item]):
    """Reads an iterator in a thread, one item ahead at most, on request.

    Use it from one thread, and `close` it at the end.

    Args:
        items: Returns the iterator; only the reading thread touches and closes it.
    """

    def __init__(self, items: Callable[[], Generator[Item, None, None]]) -> None:
        self._items = items
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: stop
        self._read: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
        self._is_asked = self._is_closed = False
        self._end: _End | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._read_items,), name="source", daemon=True
        )
        self._thread.start()

    def poll(self, timeout_s: float | None = None) -> Item | None:
        """Return the next item; None if there is none within `timeout_s`.

        Raises:
            StopIteration: At the end.
            BaseException: From the iterator.
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
        assert found is not None  # without a timeout there is an item or an exception
        return found

    def close(self) -> None:
        """Close the iterator in its thread; waits briefly, but not for a source that blocks.

        The pipeline closes it and so does the job's owner: only the first call waits.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._asked.put(False)
        if self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _read_items(self) -> None:
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
    """Converts the items of a `ThreadedReader` in the thread that uses them.

    Args:
        reader: Source of the items.
        convert: Converts an item.
        first: An item that was read before, if any.
    """

    def __init__(
        self,
        reader: ThreadedReader[Item],
        convert: Callable[[Item], Made],
        first: Item | None = None,
    ) -> None:
        self._first: list[Any] = [] if first is None else [first]
        self._reader: ThreadedReader[Any] = reader
        self._convert: Callable[[Any], Made] = convert

    def poll(self, timeout_s: float | None = None) -> Made | None:
        """Return the next item, like `ThreadedReader.poll`."""
        item = self._first.pop() if self._first else self._reader.poll(timeout_s)
        return None if item is None else self._convert(item)

    def __iter__(self) -> Iterator[Made]:
        return self

    def __next__(self) -> Made:
        found = self.poll()
        assert found is not None  # as above
        return found

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()
