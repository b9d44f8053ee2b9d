"""`SubmittedJob`: a submitted job for Python, by the files of its folder."""

import time
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import JobFailedError
from pyrmute_tasks.jobs.entries import JobResult
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.pyrmute_adapter import FleetManager
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.steering import Bound, Limits

__all__ = ["SubmittedJob"]

_FIRST_PAUSE_S: Final = 0.01
_MOST_PAUSE_S: Final = 0.5
_GROWTH: Final = 1.5


class SubmittedJob:
    """A job that was submitted; whoever drives it, and from wherever this looks.

    Nothing here talks to a fleet: all is read from the job's folder, or wished there.

    Args:
        folder: The job's folder.
        manager: The manager, whose code may be accepted on resuming.

    Attributes:
        id: The job's id.
        path: The job's folder.
    """

    def __init__(self, folder: JobFolder, manager: FleetManager) -> None:
        self._folder = folder
        self._manager = manager
        self.id: str = folder.spec.job
        self.path: Path = folder.path

    def __repr__(self) -> str:
        """Show its id and where it is."""
        return f"SubmittedJob({self.id!r}, {str(self.path)!r})"

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, or holds its output.

        Args:
            timeout_s: How long; by default for ever.

        Raises:
            JobFailedError: If it failed, or was cancelled.
            TimeoutError: If it has not ended by then; it goes on.
            JobNotFoundError: If it was discarded.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = _FIRST_PAUSE_S
        while not self._has_come_to_an_end():
            left_s = _MOST_PAUSE_S if until is None else until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"job {self.id} has not ended after {timeout_s} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * _GROWTH, _MOST_PAUSE_S)

    def _has_come_to_an_end(self) -> bool:
        end = self._folder.end()
        if end is None:
            view = self._folder.view()
            return view.is_held and view.state is LoggedState.STOPPED
        if end.ended.result in (JobResult.FAILED, JobResult.CANCELLED):
            raise JobFailedError(self.id, end.ended.result.value, end.ended.why)
        return True

    # --- steering ---------------------------------------------------------------------------

    def pause(self, why: str = "") -> None:
        """Let it pause, within seconds, until somebody resumes it.

        Args:
            why: The reason, for people.

        Raises:
            JobError: If it has ended, or was cancelled.
            ConfigurationError: If this user may not steer it.
        """
        steering.pause(self._folder, why)

    def resume(self, why: str = "", *, accept_code: bool = False) -> None:
        """Let it go on: it was paused or suspended, or has failed.

        Args:
            why: The reason, for people.
            accept_code: Go on with this manager's code although it is another one.

        Raises:
            JobError: If it goes on anyway, has succeeded, or was cancelled.
            JobChangedError: If the code is another one, and not accepted.
            ConfigurationError: If this user may not steer it.
        """
        code = steering.code_of(self._manager, self._folder)
        steering.resume(self._folder, why, code=code, accept_code=accept_code)

    def cancel(self, why: str = "") -> None:
        """Let it end, within seconds, without its output.

        Args:
            why: The reason, for people.

        Raises:
            JobError: If it has ended, or publishes its output.
            ConfigurationError: If this user may not steer it.
        """
        steering.cancel(self._folder, why)

    def set(
        self,
        *,
        max_rate: float | Bound | None = None,
        window: int | Bound | None = None,
        max_errors: int | str | None = None,
        why: str = "",
    ) -> None:
        """Set other limits, with which it goes on at once; ``"none"`` takes one away.

        Args:
            max_rate: Records a second, at most.
            window: Chunks in flight, at most.
            max_errors: Rejects allowed: a number, or a share such as ``"0.1%"``.
            why: The reason, for people.

        Raises:
            JobError: If it has ended for ever, or was cancelled.
            ConfigurationError: If a limit makes no sense, or this user may not steer it.
        """
        limits = Limits(max_rate=max_rate, window=window, max_errors=max_errors)
        steering.set_limits(self._folder, limits, why)
