"""Python's cyclic garbage collector while batches run.

A batch makes many objects that stay and usually no cycles. By default the collector runs after
every 700 new objects, and now and then walks all of them: up to half of the time of a large
batch of models. During a batch it runs after `_FIRST_OBJECTS` new objects and, while it finds
nothing, after twice as many each time: it walks over each object at most once, and still
collects the cycles that steps leave before they outgrow the rest. When the batch ends,
collection of its last objects is left to the next run, and the thresholds are restored.

The threshold belongs to the process, so batches in several threads share one state here.
"""

import gc
import os
import threading
from typing import Any, Final

__all__ = ["rare_collections"]

_FIRST_OBJECTS: Final = 200_000
_GROWTH: Final = 2


class rare_collections:  # noqa: N801  # reads as a verb; a generator's would set attributes of errors
    """Run the garbage collector rarely, unless the caller has turned it off."""

    __slots__ = ()

    def __enter__(self) -> None:
        _state.enter()

    def __exit__(self, *_: object) -> None:
        _state.leave()


class _State:
    """The thresholds in use and those to restore.

    Thresholds that the program sets meanwhile stay.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._usual: tuple[int, int, int] | None = None  # None while nothing is changed
        self._objects = 0
        self.unlock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.unlock)

    def unlock(self) -> None:
        """Replace the lock; after a fork, the thread that held it may be gone."""
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Begin a batch."""
        with self._lock:
            self._batches += 1
            usual = gc.get_threshold()
            if self._usual is None and gc.isenabled() and 0 < usual[0] < _FIRST_OBJECTS:
                self._usual = usual
                self._set(_FIRST_OBJECTS)
                gc.callbacks.append(self._collected)

    def leave(self) -> None:
        """End a batch."""
        with self._lock:
            self._batches -= 1
            if self._batches or self._usual is None:
                return
            few = not self._usual[0] < gc.get_count()[0] < _FIRST_OBJECTS
            if few or not self._is_ours() or self._collected not in gc.callbacks:
                self._restore()
            elif self._objects > _FIRST_OBJECTS:
                self._set(_FIRST_OBJECTS)

    def _set(self, objects: int) -> None:
        assert self._usual is not None
        self._objects = objects
        gc.set_threshold(objects, *self._usual[1:])

    def _is_ours(self) -> bool:
        return gc.get_threshold()[0] == self._objects

    def _restore(self) -> None:
        usual, self._usual = self._usual, None
        if self._collected in gc.callbacks:  # unless the program has emptied the list
            gc.callbacks.remove(self._collected)
        if usual is not None and self._is_ours():
            gc.set_threshold(*usual)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        # Called in the thread that triggers the collection, even if it holds the lock.
        if phase != "stop" or self._usual is None:
            return
        if self._batches == 0:
            self._restore()
        elif self._is_ours():
            self._set(_FIRST_OBJECTS if info["collected"] else self._objects * _GROWTH)


_state: Final = _State()
