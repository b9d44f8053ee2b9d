"""Users' wishes for a job: ``want.json``, the only file of a job that users write."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final, Self

from pyrmute_tasks.errors import ConfigurationError, printable
from pyrmute_tasks.jobs.checked import MOST, cannot_be, is_sound
from pyrmute_tasks.jobs.documents import object_of, write_whole
from pyrmute_tasks.jobs.entries import Wished
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.storage import FolderStorage, Storage

__all__ = [
    "CHANGES",
    "MOST_REASON",
    "WANT",
    "FoundWant",
    "Want",
    "check_reason",
    "locked",
    "read_submitted",
    "read_want",
    "unknown_wish",
    "write_want",
    "write_wish",
]

WANT: Final = "want.json"
CHANGES: Final = ("max_rate", "window", "max_errors", "fingerprint")
"""The wishes of which a change ends an epoch, so that the next one begins with it."""

MOST_REASON: Final = 4_000
"""The most characters of a reason that a user gives."""

_MOST_BYTES: Final = 1024 * 1024
# A change reads the job's log and syncs one file: milliseconds, but longer on a slow disk. A
# process that holds the lock for longer is taken to be frozen, and others go on without the lock.
_LOCK_S: Final = 2.0
_LOCK_PAUSE_S: Final = 0.01
_LATER_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Want:
    """A user's wishes for a job.

    Attributes:
        wish: The action on the job.
        max_rate: Records a second, at most; 0 for no bound.
        window: Ranges in flight, at most; 0 for the default.
        max_errors: Rejects allowed, a number or a share such as ``0.1%``; empty for the spec's.
        who: The user, as ``user@host``.
        why: The reason given.
        at: When, in seconds since 1970.
        fingerprint: Root of the tree of fingerprints of other code, which was accepted; or empty.
        code: The whole tree of that code, as text.
    """

    wish: Wish = Wish.RUN
    max_rate: float = 0.0
    window: int = 0
    max_errors: str = ""
    who: str = ""
    why: str = ""
    at: float = 0.0
    fingerprint: str = ""
    code: str = ""

    @classmethod
    def of(cls, found: Mapping[str, object]) -> Self:
        """Return the wishes from fields.

        Raises:
            ValueError: If one is unknown, or has a value that it cannot have.
        """
        unknown = sorted(set(found) - {each.name for each in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]}")
        return cls(
            Wish(_text(found, "wish") or Wish.RUN),
            _number(found, "max_rate"),
            int(_number(found, "window")),
            _text(found, "max_errors"),
            _text(found, "who"),
            _text(found, "why"),
            _number(found, "at"),
            _text(found, "fingerprint"),
            _text(found, "code"),
        )

    @classmethod
    def of_logged(cls, wished: Mapping[str, object]) -> Self:
        """Return the wishes that a log names, in place of a file that cannot be used.

        A log has no trees, so accepted code is known by its fingerprint only.
        """
        try:
            return cls.of({**wished, "code": ""})
        except ValueError:  # of a newer version
            return cls()

    @property
    def lacks_code(self) -> bool:
        """Whether other code was accepted, and its tree is lost: nobody can go on with it."""
        return bool(self.fingerprint and not self.code)

    def is_obeyed(self, wished: Mapping[str, object]) -> bool:
        """Return whether these are the wishes that were obeyed last.

        Args:
            wished: The wishes that were obeyed last, by the log.
        """
        return dict(self.as_entry().want) == dict(wished)

    def is_pending(self, wished: Mapping[str, object], logged_at: float) -> bool:
        """Return whether the last epoch did not know these wishes.

        They are new if they are later than all that is logged, or ask for something else, as those
        of the epoch's last moments do. Obeyed ones are not new, even if later by another clock.

        Args:
            wished: The wishes that were obeyed last, by the log.
            logged_at: When the log was last written, in seconds since 1970.
        """
        if self.is_obeyed(wished):
            return False
        asked = self.as_entry().want
        return self.at > logged_at or any(
            asked[name] != wished.get(name, asked[name]) for name in ("wish", *CHANGES)
        )

    def made_by(self, who: str, why: str, after: float) -> Self:
        """Return the wishes with their user, reason and time.

        Args:
            who: The user, as ``user@host``.
            why: The reason, for people.
            after: When the job's log was last written, by its writer's clock: they become later.
        """
        at = max(time.time(), after + _LATER_S, self.at + _LATER_S)
        return replace(self, who=who, why=why, at=min(at, MOST))

    def as_fields(self) -> dict[str, object]:
        """Return the wishes as fields, for the file."""
        return {**asdict(self), "wish": self.wish.value}

    def as_entry(self) -> Wished:
        """Return the entry that logs them, without the tree of fingerprints."""
        told = self.as_fields()
        del told["code"]
        return Wished(told)


@dataclass(frozen=True, slots=True)
class FoundWant:
    """The wishes found in a job's folder.

    Attributes:
        want: The wishes in force.
        problem: Why the file could not be used, so that an earlier want still holds; or empty.
    """

    want: Want
    problem: str = ""


def write_want(storage: Storage, want: Want) -> None:
    """Replace the wishes for a job atomically.

    Raises:
        ConfigurationError: If a value is one that nobody could read again.
        OSError: If they cannot be written.
    """
    told = want.as_fields()
    try:
        Want.of(told)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    check_reason(want.why)
    write_whole(storage, WANT, told)


def check_reason(why: object) -> None:
    """Check the reason that a user gives.

    Raises:
        ConfigurationError: If it is no text, or a very long one.
    """
    if not is_sound(why, (str,)):
        raise ConfigurationError(cannot_be("why", why))
    if len(str(why)) > MOST_REASON:
        raise ConfigurationError(
            f"why must have {MOST_REASON:,} characters at most, not {len(str(why)):,}"
        )


def write_wish(storage: FolderStorage, want: Want) -> None:
    """Replace the wishes for a job; others can read them, whatever the umask of this user.

    Call this while they are `locked`.

    Raises:
        ConfigurationError: If this user may not steer the job, or the file cannot be written.
    """
    path = storage.path / WANT
    try:
        write_want(storage, want)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {error.strerror}; all users who can write to the jobs root can "
            "steer its jobs"
        ) from None
    with contextlib.suppress(OSError):  # another user may have replaced it by now
        path.chmod(storage.path.stat().st_mode & 0o666)


def read_want(storage: Storage, last: Want) -> FoundWant:
    """Read the wishes for a job.

    Args:
        storage: The job's files.
        last: The previous wishes, which stay in force if the file cannot be used.
    """
    try:
        data = storage.read(WANT, 0, _MOST_BYTES + 1)
    except FileNotFoundError:
        return FoundWant(last)
    except OSError as error:
        return FoundWant(last, f"{WANT} cannot be read: {error.strerror}")
    if len(data) > _MOST_BYTES:
        return FoundWant(last, f"{WANT} has more than {_MOST_BYTES} bytes")
    try:
        return FoundWant(Want.of(object_of(data)))
    except (ValueError, RecursionError) as error:
        return FoundWant(last, f"{WANT} cannot be used: {printable(error)}")


def read_submitted(storage: Storage, last: Want) -> FoundWant:
    """Read the wishes for a submitted job, of which a missing file is a problem, too.

    Args:
        storage: The job's files.
        last: The previous wishes, which stay in force if the file cannot be used, or is missing.
    """
    found = read_want(storage, last)
    is_missing = found.want is last and not found.problem
    return FoundWant(last, f"{WANT} is missing") if is_missing else found


def unknown_wish(problem: str) -> str:
    """Return why a job waits whose wishes cannot be read, and what to do."""
    return f"{problem}: pause, resume or cancel the job to write a new {WANT}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the wishes for a job, so that nobody else changes them within the block.

    On a file system without such locks, or if the holder is frozen and others go on without the
    lock, the last of two changes in one moment stands.
    """
    with contextlib.ExitStack() as stack:
        # If the folder is missing, what the block reads or writes in it raises that.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            _lock(descriptor)
        yield


def _lock(descriptor: int) -> None:
    until = time.monotonic() + _LOCK_S
    while time.monotonic() < until:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def _number(found: Mapping[str, object], name: str) -> float:
    value = found.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")  # noqa: TRY004  # of a file, not of an argument
    if not 0 <= value <= MOST:
        raise ValueError(f"{name} is not between 0 and {MOST:g}")
    return value


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")  # noqa: TRY004  # of a file, not of an argument
    if not is_sound(value, (str,)):
        raise ValueError(f"{name} is not a text that can be written")
    return value
