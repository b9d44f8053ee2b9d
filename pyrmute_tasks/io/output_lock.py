"""A lock file beside an output, which names its writer.

The file `.<OUT>.lock` belongs to the run whose token it holds. It appears with its contents in
one atomic step (a hard link; where there are none, an exclusive creation), which holds on local
and on network file systems. `flock` does not: on some of these it is void, or per host.

A lock belongs to nobody when its process is gone, which is certain in the place where it ran
(the same boot, the same process ids), or else when nobody has touched it for `SILENT_S`; times are
those of the file system's own clock. To remove such a lock a run first creates a marker for it
and reads it again, so that nobody removes the lock of a run that was quicker. A marker names its
maker as a lock does: the marker of a run that is gone is not removed but gets a marker itself, and
the last of this chain gives the right to remove the lock.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from pyrmute_tasks.errors import ConfigurationError, OutputInUseError, printable
from pyrmute_tasks.jobs.names import short_name
from pyrmute_tasks.processes import is_alive, place_here, start_of

__all__ = ["BEAT_EVERY_S", "SILENT_S", "OutputLock", "held_lock"]

BEAT_EVERY_S: Final = 5.0
SILENT_S: Final = 60.0

_TOKEN_BYTES: Final = 8
_MOST_BYTES: Final = 4096
_TRIES: Final = 50
_TRY_EVERY_S: Final = 0.01
_BRIEF: Final = {"lock", "stale"}
_MOST_MISSING: Final = 3  # beats: it may be on storage that is away
_NOT_A_FILE: Final = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENODEV}
_NO_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class _Holder:
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
        return not is_alive(self.pid, self.started)


@dataclass(frozen=True, slots=True)
class _Found:
    """A lock file as found at one moment."""

    holder: _Holder | None  # None if it cannot be read
    inode: int
    touched_ns: int

    def is_before(self, job: str, epoch: int) -> bool:
        """Return whether an older epoch of a submitted job holds it, whose lease is gone."""
        holder = self.holder
        return holder is not None and holder.job == job and 0 < holder.epoch < epoch

    def belongs_to_nobody(self, now_ns: int) -> bool:
        if self.holder is not None and self.holder.place == place_here():
            return self.holder.is_gone
        return now_ns - self.touched_ns > SILENT_S * 1e9


# Above 250 lines: one life from taking a lock to releasing it.
class OutputLock:
    """The exclusive right to write one output file.

    Args:
        target: The output, no link.
        job: The job's id, for the message to other runs.
        epoch: Of a submitted job, whose older epochs have lost the lock; 0 for a run.

    Attributes:
        token: Cannot be guessed; for the names of the run's files.
    """

    def __init__(self, target: Path, job: str, epoch: int = 0) -> None:
        self.token: str = secrets.token_hex(_TOKEN_BYTES)
        self._directory = target.parent
        self._stem = short_name(target.name)
        self._path = self._directory / f".{self._stem}.lock"
        self._name = str(target)
        self._job = job
        self._epoch = epoch
        self._pid = os.getpid()
        self._descriptor = -1
        self._lost = ""  # why nobody may write any more
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def path_of(self, kind: str) -> Path:
        """Return the path of a file beside the output that belongs to this run alone."""
        return self._directory / f".{self._stem}.{self.token}.{kind}"

    def acquire(self) -> None:
        """Take the lock, and remove the files of killed runs.

        Raises:
            OutputInUseError: If another run holds it; at once.
            ConfigurationError: If something else has the lock's name.
            OSError: If the directory cannot be written.
        """
        candidate = self.path_of("lock")
        self._descriptor = os.open(candidate, _CREATE, 0o644)
        try:
            os.write(self._descriptor, self._contents())
            self._take()
            candidate.unlink()
            self._remove_leftovers()
        except BaseException:  # also if interrupted, when the lock may be there already
            with contextlib.suppress(OSError):
                candidate.unlink()
            self.release()
            raise
        self._beating = threading.Thread(target=self._beat, name="output-lock", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Check that no other run has taken the lock over since the last check.

        Raises:
            OutputInUseError: If another run has.
        """
        if self._lost:
            raise OutputInUseError(f"cannot write {self._name} any more: {self._lost}")

    def confirm(self) -> None:
        """Check that the lock is there, and that no other run has taken it over.

        Raises:
            OutputInUseError: If another run has, or it is gone.
            OSError: If it cannot be read.
        """
        found = self._look()
        self._lost = self._lost or (self._why_lost(found) if found else self._missing)
        self.check()

    def refuse_other(self) -> None:
        """Check that no other run has taken the lock over, as far as it can be read.

        Raises:
            OutputInUseError: If another run has.
        """
        with contextlib.suppress(OSError, ConfigurationError):
            found = self._look()
            self._lost = self._lost or (self._why_lost(found) if found else "")
        self.check()

    def release(self) -> None:
        """Release the lock; does nothing in a fork of the process that took it."""
        if os.getpid() != self._pid:
            return
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        with contextlib.suppress(OSError, ConfigurationError):
            if self._is_ours(self._path):
                self._path.unlink()
        # If its name was out of reach, since the storage was away, it belongs to nobody when that
        # is back: this process lives on, perhaps.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.utime(self._descriptor, ns=(0, 0))
        os.close(self._descriptor)

    # --- taking it --------------------------------------------------------------------------

    def _contents(self) -> bytes:
        holder = _Holder(
            self.token,
            self._job,
            socket.gethostname(),
            place_here(),
            self._pid,
            start_of(self._pid),
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            self._epoch,
        )
        return json.dumps(asdict(holder)).encode() + b"\n"

    def _take(self) -> None:
        now_ns = os.fstat(self._descriptor).st_mtime_ns  # the file system's own clock
        for _ in range(_TRIES):
            if self._place(self._path):
                return
            found = self._look()
            if found is None:
                continue  # it was given back in this moment
            is_ours = found.is_before(self._job, self._epoch)
            if not is_ours and not found.belongs_to_nobody(now_ns):
                self._start_its_time(found, now_ns)
                raise OutputInUseError(self._told(found.holder))
            self._remove_stale(found, now_ns)
        raise OutputInUseError(self._told(None))

    def _start_its_time(self, found: _Found, now_ns: int) -> None:
        """Set the time of a lock from the future to now: the clock was set back.

        Its holder touches it again. If nobody does, it expires in a minute, and not when the
        clock has come that far again.
        """
        if found.touched_ns - now_ns > SILENT_S * 1e9:
            with contextlib.suppress(OSError):
                os.utime(self._path, ns=(now_ns, now_ns), follow_symlinks=False)

    def _told(self, holder: _Holder | None) -> str:
        who = f" ({holder})" if holder is not None else ""
        return f"another run{who} is writing {self._name}; wait for it, or choose another output"

    def _place(self, path: Path) -> bool:
        """Create a file that names this run, or return False if another one is there."""
        try:
            os.link(self.path_of("lock"), path)
        except FileExistsError:
            return self._is_ours(path)  # the answer to an earlier try of the kernel's was lost
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create(path)
        return True

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, _CREATE, 0o644)
        except FileExistsError:
            return False
        os.close(self._descriptor)
        self._descriptor = descriptor
        os.write(descriptor, self._contents())
        return self._is_ours(path)

    def _remove_stale(self, found: _Found, now_ns: int) -> None:
        """Remove an abandoned lock; only one run at a time may remove this one."""
        markers = [self._marker(found)]
        while not self._place(markers[-1]):
            maker = self._look(markers[-1])
            if maker is None or not maker.belongs_to_nobody(now_ns):
                time.sleep(_TRY_EVERY_S)  # another run is removing it
                return
            markers.append(self._marker(maker))
        try:
            if self._look() == found:  # and so it stays, since others need the marker
                self._path.unlink()
        finally:
            for marker in markers:
                with contextlib.suppress(OSError):
                    marker.unlink()

    def _marker(self, found: _Found) -> Path:
        return self._directory / f".{self._stem}.{found.inode:x}{found.touched_ns:x}.stale"

    # --- looking at it ----------------------------------------------------------------------

    def _look(self, path: Path | None = None) -> _Found | None:
        """Return the lock, or another file that names a run."""
        path = path or self._path
        try:
            descriptor = os.open(path, _READ)
        except FileNotFoundError:
            return None
        except PermissionError:
            found = path.lstat()
            return _Found(None, found.st_ino, found.st_mtime_ns)
        except OSError as error:
            if error.errno not in _NOT_A_FILE:
                raise
            raise self._in_the_way(path) from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._in_the_way(path)
            holder = _read_holder(os.read(descriptor, _MOST_BYTES))
            return _Found(holder, found.st_ino, found.st_mtime_ns)
        finally:
            os.close(descriptor)

    def _in_the_way(self, path: Path) -> ConfigurationError:
        return ConfigurationError(
            f"cannot write {self._name}: {path} is in the way and not a lock file; remove it"
        )

    def _is_ours(self, path: Path) -> bool:
        found = self._look(path)
        return found is not None and found.holder is not None and found.holder.token == self.token

    @property
    def _missing(self) -> str:
        return f"its lock {self._path} was removed, or the directory of both"

    def _why_lost(self, found: _Found) -> str:
        if found.holder is not None and found.holder.token == self.token:
            return ""
        who = f" ({found.holder})" if found.holder is not None else ""
        return f"another run{who} has taken it over: this one did not move for {SILENT_S:.0f} s"

    def _beat(self) -> None:
        missing = 0
        while not self._stop.wait(BEAT_EVERY_S):
            with contextlib.suppress(OSError, ConfigurationError):
                os.utime(self._descriptor)
                found = self._look()
                missing = 0 if found else missing + 1
                if found:
                    self._lost = self._lost or self._why_lost(found)
                elif missing >= _MOST_MISSING:
                    self._lost = self._lost or self._missing

    def _remove_leftovers(self) -> None:
        """Remove the files of killed runs; while the lock is held, no other run has any."""
        now_ns = os.fstat(self._descriptor).st_mtime_ns
        name = re.compile(rf"\.{re.escape(self._stem)}\.([0-9a-f]+)\.(\w+)")
        try:
            paths = list(self._directory.iterdir())
        except OSError:  # one may be allowed to write into a directory, and not to read it
            return
        for path in paths:
            match = name.fullmatch(path.name)
            if match is None or match[1] == self.token:
                continue
            with contextlib.suppress(OSError, ConfigurationError):
                # A run that is being refused in this moment has one of the other two.
                if match[2] == "partial" or (match[2] in _BRIEF and self._is_left(path, now_ns)):
                    path.unlink()

    def _is_left(self, path: Path, now_ns: int) -> bool:
        found = self._look(path)
        return found is not None and found.belongs_to_nobody(now_ns)


def _read_holder(data: bytes) -> _Holder | None:
    try:
        values = json.loads(data)
        values.setdefault("epoch", 0)  # an older version has written it
        holder = _Holder(**{field.name: values[field.name] for field in fields(_Holder)})
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    is_sound = all(type(getattr(holder, field.name)) is field.type for field in fields(_Holder))
    return holder if is_sound else None


@contextlib.contextmanager
def held_lock(target: Path, job: str) -> Iterator[None]:
    """Hold the lock of an output.

    Args:
        target: The output, no link.
        job: The job's id, for the message to other runs.

    Raises:
        OutputInUseError: If another run holds it; at once.
        OSError: If the directory cannot be written.
    """
    lock = OutputLock(target, job)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
