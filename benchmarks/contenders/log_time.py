"""How long a run takes for its log: by reference there is always one, so it cannot be left out."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

from pyrmute_tasks.jobs.log import LogWriter
from pyrmute_tasks.jobs.output import Output

__all__ = ["LogTime"]

# None of them calls another, so no time counts twice. What `publish` does beside them, syncing
# and renaming the output, it would also do without a log.
_PARTS: Final = (
    (LogWriter, "log"),
    (LogWriter, "put_rejects"),
    (LogWriter, "commit"),
    (Output, "prove"),
)


class LogTime:
    """Counts the time in writing and syncing the log, and in the proof, while it is entered.

    On the wall: a sync of the log waits, and what waits for it is the run.

    Attributes:
        seconds: The time so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        for kind, name in _PARTS:
            call = getattr(kind, name)
            self._undo.callback(setattr, kind, name, call)
            setattr(kind, name, self._timed(call))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - began

        return timed
