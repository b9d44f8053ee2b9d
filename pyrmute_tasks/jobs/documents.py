"""JSON files that are replaced whole: specs, wishes, and notes of jobs that were discarded."""

import contextlib
import json
import secrets
from typing import Final

from pyrmute_tasks.jobs.storage import Storage

__all__ = ["object_of", "write_whole"]

_TOKEN_BYTES: Final = 8


def write_whole(storage: Storage, name: str, fields: dict[str, object]) -> None:
    """Replace a file atomically and durably: readers see the old content or the new."""
    candidate = f".{name}.{secrets.token_hex(_TOKEN_BYTES)}"
    file = storage.create(candidate)
    try:
        try:
            file.append(json.dumps(fields, indent=2).encode() + b"\n")
            file.sync()
        finally:
            file.close()
        storage.replace(candidate, name)
    except BaseException:
        with contextlib.suppress(OSError):
            storage.remove(candidate)
        raise
    storage.sync_folder()


def object_of(data: bytes) -> dict[str, object]:
    """Return a file's JSON object.

    Raises:
        ValueError: If it holds something else.
    """
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # of a file, not of an argument
    return found
