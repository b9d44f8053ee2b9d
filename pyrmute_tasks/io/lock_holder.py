"""The holder of an output's lock, as its lock file names it, and whether it is gone."""

import json
from dataclasses import dataclass, fields
from typing import Final

from pyrmute_tasks.errors import printable
from pyrmute_tasks.processes import is_alive, place_here

__all__ = ["SILENT_S", "FoundLock", "LockHolder", "read_holder"]

SILENT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The holder of a lock.

    Attributes:
        token: A token of the run, unknown to others before.
        job: Its job's id.
        host: Name of its host, for people.
        place: The boot and namespace of its process id.
        pid: Its process id there.
        started: When that process started, by the kernel's count.
        since: When the lock was taken, for people.
        epoch: The epoch of a submitted job; 0 for a run.
    """

    token: str
    job: str
    host: str
    place: str
    pid: int
    started: str
    since: str
    epoch: int = 0

    def __str__(self) -> str:
        shown = f"job {self.job}, host {self.host}, process {self.pid}, since {self.since}"
        return printable(shown)

    @property
    def is_gone(self) -> bool:
        """Whether its process, of this place, has ended."""
        return not is_alive(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class FoundLock:
    """A lock file as found at one moment."""

    holder: LockHolder | None  # None if it cannot be read
    inode: int
    touched_ns: int

    def is_before(self, job: str, epoch: int) -> bool:
        """Return whether an older epoch of a submitted job holds it, whose lease is gone."""
        holder = self.holder
        return holder is not None and holder.job == job and 0 < holder.epoch < epoch

    def is_leaving(self, ended: str) -> bool:
        """Return whether an epoch of this job holds it, which is about to release it."""
        return self.holder is not None and self.holder.job == ended and self.holder.epoch > 0

    def belongs_to_nobody(self, now_ns: int) -> bool:
        """Return whether its process is gone or, elsewhere, nobody has touched it for long."""
        if self.holder is not None and self.holder.place == place_here():
            return self.holder.is_gone
        return now_ns - self.touched_ns > SILENT_S * 1e9


def read_holder(data: bytes) -> LockHolder | None:
    """Return the holder that a lock file names; None if it cannot be read."""
    try:
        values = json.loads(data)
        values.setdefault("epoch", 0)  # an older version has written it
        holder = LockHolder(**{field.name: values[field.name] for field in fields(LockHolder)})
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    is_sound = all(type(getattr(holder, field.name)) is field.type for field in fields(LockHolder))
    return holder if is_sound else None
