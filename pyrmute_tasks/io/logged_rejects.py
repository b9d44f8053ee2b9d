"""Rejects in a job's folder: the failures of a range, as they travel, counted from its start.

Nobody knows the index of a record in a range before all ranges in front of it are settled.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from pyrmute_tasks.errors import ConfigurationError, JobLogError
from pyrmute_tasks.failures import RecordFailure, RecordPlace
from pyrmute_tasks.jobs.fold import Span
from pyrmute_tasks.ranges.frames import Place
from pyrmute_tasks.wire.frames import pack, unpack
from pyrmute_tasks.wire.remote_failures import failure_from_wire, failure_to_wire

__all__ = ["Restored", "decode_rejects", "encode_rejects", "locate", "with_texts"]


class Restored(NamedTuple):
    """A settled interval of the source, and the failures of its rejected records.

    Attributes:
        span: The interval.
        failures: Failures, counted from its first record.
        places: Where their records stand, counted from its first line.
    """

    span: Span
    failures: list[RecordFailure]
    places: list[Place]

    def located(self, file: str, *, with_text: bool) -> list[RecordFailure]:
        """Return its failures with their places in the whole source.

        There must be no gap before it.

        Args:
            file: The file, as the user named it.
            with_text: Read the text of their lines.

        Raises:
            ConfigurationError: If that cannot be read.
        """
        found = [locate(place, file, self.span.first_line) for place in self.places]
        if with_text:
            found = list(with_texts(found, file))
        return [
            replace(failure, index=self.span.first_record + failure.index, place=place)
            for failure, place in zip(self.failures, found, strict=True)
        ]


def encode_rejects(failures: Iterable[RecordFailure], places: Iterable[Place]) -> bytes:
    """Encode the failures of a range and the places of their records, both counted from its start.

    Returns:
        The bytes; empty if there are none.
    """
    found = [
        [failure_to_wire(failure), list(astuple(place))]
        for failure, place in zip(failures, places, strict=True)
    ]
    return pack(found, lossy=True) if found else b""


def decode_rejects(data: bytes) -> tuple[list[RecordFailure], list[Place]]:
    """Decode the failures and places from `encode_rejects`.

    Raises:
        JobLogError: If they are damaged.
    """
    try:
        found: list[Any] = unpack(data) if data else []
        failures = [failure_from_wire(failure) for failure, _ in found]
        return failures, [Place(*place) for _, place in found]
    except Exception as error:  # exceptions are rebuilt from names: anything may happen
        raise JobLogError(
            f"rejects of the job are damaged ({type(error).__name__}); begin again with --restart"
        ) from error


def locate(place: Place, file: str, first_line: int) -> RecordPlace:
    """Return the place of a record in its file.

    Args:
        place: Its place in a range.
        file: The file, as the user named it.
        first_line: Lines of the file before the range.
    """
    line = first_line + place.line + 1
    name = str(Path(file))  # as chunks name it
    return RecordPlace(name, line, place.offset, place.length, f"sha256:{place.digest}")


def with_texts(
    places: Sequence[RecordPlace], path: str | bytes | os.PathLike[str]
) -> Iterator[RecordPlace]:
    """Yield places with the text of their lines, read from the file.

    Raises:
        ConfigurationError: If the file cannot be read, or holds something else now.
    """
    try:
        with open(path, "rb") as file:
            for place in places:
                file.seek(place.offset)
                text = file.read(place.length)
                if place.digest != f"sha256:{sha256(text).hexdigest()}":
                    raise ConfigurationError(
                        f"{place.file} has changed while it was read, at line {place.line}; "
                        "nothing was published: migrate a copy that nobody writes to"
                    )
                yield replace(place, text=text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {os.fsdecode(path)} any more: {error.strerror or error}"
        ) from None
