"""Bounded hand-over of items between a thread and an event loop."""

import asyncio
import contextlib
import threading
from typing import Final, Generic, TypeVar

__all__ = ["Handover", "HandoverClosedError"]

Item = TypeVar("Item")

_MOST_ITEMS: Final = 128


class HandoverClosedError(Exception):
    """The other side has closed the hand-over."""


class Handover(Generic[Item]):
    """Hands items over in order, one side in a thread and the other one in an event loop.

    A reader takes all that is there at once, as waking it costs more than an item, and waits while
    nothing is there. A writer waits while 128 items are there, so it is at most 256 ahead.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Condition()  # notified for the thread
        self._changed = asyncio.Event()  # set for the event loop
        self._loop_waits = False
        self._items: list[Item] = []
        self._end: BaseException | None = None
        self._is_over = self._is_closed = False

    # --- in the thread ----------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """Hand over an item; blocks while there are too many.

        Raises:
            HandoverClosedError: If the other side does not want it.
        """
        with self._lock:
            while len(self._items) >= _MOST_ITEMS and not self._is_closed:
                self._lock.wait()
            if self._is_closed:
                raise HandoverClosedError
            self._items.append(item)
            self._wake_loop()

    def take(self) -> list[Item]:
        """Return the items that are there; blocks while there are none.

        Returns:
            The items; none at the end.

        Raises:
            BaseException: What `end` was given, after the last item.
            HandoverClosedError: If it was closed.
        """
        with self._lock:
            while not self._is_ready():
                self._lock.wait()
            return self._taken()

    # --- in the event loop ------------------------------------------------------------------

    async def put_async(self, item: Item) -> None:
        """Hand over an item; see `put`.

        Raises:
            HandoverClosedError: If the other side does not want it.
        """
        while True:
            with self._lock:
                if self._is_closed:
                    raise HandoverClosedError
                if len(self._items) < _MOST_ITEMS:
                    self._items.append(item)
                    self._lock.notify()
                    return
                self._loop_will_wait()
            await self._changed.wait()

    async def take_async(self) -> list[Item]:
        """Return the items that are there; see `take`.

        Raises:
            BaseException: What `end` was given, after the last item.
            HandoverClosedError: If it was closed.
        """
        while True:
            with self._lock:
                if self._is_ready():
                    return self._taken()
                self._loop_will_wait()
            await self._changed.wait()

    # --- on either side ---------------------------------------------------------------------

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more is put; `error` is raised to the reader after the last item."""
        with self._lock:
            self._is_over, self._end = True, error
            self._lock.notify()
            self._wake_loop()

    def close(self) -> None:
        """End both sides at once, and drop waiting items."""
        with self._lock:
            self._is_closed = True
            self._items = []
            self._lock.notify()
            self._wake_loop()

    # --- details, under the lock --------------------------------------------------------------

    def _is_ready(self) -> bool:
        return bool(self._items) or self._is_over or self._is_closed

    def _taken(self) -> list[Item]:
        if self._is_closed:
            raise HandoverClosedError
        if not self._items and self._end is not None:
            raise self._end
        items, self._items = self._items, []
        self._lock.notify()
        self._wake_loop()
        return items

    def _loop_will_wait(self) -> None:
        self._changed.clear()
        self._loop_waits = True

    def _wake_loop(self) -> None:
        if self._loop_waits:
            self._loop_waits = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits in it
                self._loop.call_soon_threadsafe(self._changed.set)
