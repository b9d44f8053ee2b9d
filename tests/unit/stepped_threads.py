"""Threads that go on step by step, on command: processes of a simulation."""

import threading
from collections.abc import Callable
from typing import Final

FOR_EVER: Final = 10**9


class Died(BaseException):
    """The process has died."""


class SteppedThread:
    """A thread that stops at a chosen call of `pause` until the test continues it."""

    def __init__(self) -> None:
        self.is_alive = True
        self._steps = 0
        self._work: Callable[[], None] | None = None
        self._fault: BaseException | None = None
        self._go, self._back = threading.Lock(), threading.Lock()  # to hand over, not to exclude
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        return self._work is not None

    @property
    def is_calling(self) -> bool:
        """Whether the caller of this is the thread."""
        return threading.current_thread() is self._thread

    def begin(self, work: Callable[[], None]) -> None:
        """Give it a work; nothing of it is done yet."""
        assert self.is_alive
        assert not self.is_busy
        self._work = work

    def go_on(self, steps: int) -> None:
        """Let it work, and stop it at a call of `pause` after so many others."""
        self._steps = steps
        self._go.release()
        self._back.acquire()
        if self._fault is not None:
            raise self._fault

    def end(self) -> None:
        """End it where it stands."""
        self.is_alive = False
        if self._fault is None:  # else it has ended
            self.go_on(0)
        self._thread.join()

    def pause(self) -> None:
        """Stop here, if that was the last step; in the thread."""
        self._steps -= 1
        if self._steps < 0:
            self.stop()
        if not self.is_alive:
            raise Died

    def stop(self) -> None:
        """Stop until the test continues the thread; called in that thread."""
        if self.is_alive:  # else unwinding
            self._back.release()
            self._go.acquire()

    def _live(self) -> None:
        try:
            while True:
                self._go.acquire()
                if not self.is_alive:
                    return
                if self._work is not None:
                    self._work()
                self._work = None
                self._back.release()
        except Died:
            pass
        except BaseException as error:
            self._fault = error
        finally:
            self._work = None
            self._back.release()
