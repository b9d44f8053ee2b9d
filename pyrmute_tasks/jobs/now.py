"""``now.json``: a driver's live view of its job, for people who watch; nothing depends on it."""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pyrmute_tasks.jobs.checked import check_fields, is_sound
from pyrmute_tasks.jobs.storage import FolderStorage

__all__ = ["NOW", "Now", "read_now", "remove_now", "write_now"]

NOW: Final = "now.json"
_MOST_BYTES: Final = 256 * 1024
_TOKEN_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """A driver's live view of its job.

    Attributes:
        epoch: The driver's epoch; what an older one wrote is out of date.
        at: When it was written, in seconds since 1970, by the driver's clock.
        records: Records read so far, by all epochs.
        outputs: Records written.
        rejected: Records rejected.
        done_bytes: Bytes of the source that are done.
        total_bytes: Bytes of the source.
        rate: Records a second, lately.
        eta_s: Time to the end at this rate; None if unknown.
        workers: Workers that serve the queue; None if unknown.
        window: Chunks that may be in flight.
        in_flight: Chunks in flight.
        jobs: Jobs that share the fleet, this one included.
        waits: Why nothing moves; empty if something does.
        waits_since: When it began to wait, in seconds since 1970; 0 if it does not.
        causes: How many records failed, by cause.
        way: ``by reference`` or ``through the coordinator``.
        notes: The last sentences about workers and chunks, the newest last.
    """

    epoch: int
    at: float
    records: int = 0
    outputs: int = 0
    rejected: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    workers: int | None = None
    window: int = 0
    in_flight: int = 0
    jobs: int = 1
    waits: str = ""
    waits_since: float = 0.0
    causes: Mapping[str, int] = field(default_factory=dict)
    way: str = ""
    notes: tuple[str, ...] = ()


def write_now(folder: Path, now: Now) -> None:
    """Replace a job's ``now.json``; not synced, since nothing depends on it.

    Raises:
        OSError: If it cannot be written.
    """
    candidate = folder / f".{NOW}.{secrets.token_hex(_TOKEN_BYTES)}"
    try:
        candidate.write_text(json.dumps(asdict(now)) + "\n", "utf-8")
        os.replace(candidate, folder / NOW)
    except BaseException:
        with contextlib.suppress(OSError):
            candidate.unlink()
        raise


def read_now(folder: Path) -> Now | None:
    """Return what a job's driver wrote last; None if there is nothing that can be read."""
    try:
        found = json.loads(FolderStorage(folder).read(NOW, 0, _MOST_BYTES))
        now = Now(**{**found, "notes": tuple(found.get("notes", ()))})
        _check(now)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None  # torn, of another version, or not there
    return now


def _check(now: Now) -> None:
    check_fields(now)
    sound = [is_sound(each, (str,)) for each in (*now.notes, *now.causes)]
    sound += [is_sound(each, (int,)) for each in now.causes.values()]
    if not all(sound):
        raise ValueError("a part has a value that it cannot have")


def remove_now(folder: Path) -> None:
    """Remove a job's ``now.json``, if it is there."""
    with contextlib.suppress(OSError):
        (folder / NOW).unlink()
