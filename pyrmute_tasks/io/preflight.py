"""Room on a file system for what a job will write, checked before anything is started."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.job_targets import is_parts
from pyrmute_tasks.io.jsonl import check_source
from pyrmute_tasks.io.line_sample import sample_files
from pyrmute_tasks.io.output_place import is_stream, output_errors
from pyrmute_tasks.logs import log
from pyrmute_tasks.plans.field_shapes import fields_of
from pyrmute_tasks.pydantic_internals import serializes_itself

__all__ = ["Need", "Room", "check_room", "in_bytes", "room_at"]

_OWN_FILES: Final = 8  # lock, log, spec, partial output, nonce, …
_PART_BYTES: Final = 1024 * 1024  # the least of a range
_LINES: Final = 100
_MOST_GROWTH: Final = 8  # of what is read; with more room than that, the source is not looked at
_SURE: Final = 0.5  # of the least, as the number of lines is an estimate
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_UNIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Need:
    """The room that a job needs.

    Attributes:
        likely_bytes: What it will probably write.
        most_bytes: What it may need for a while: ranges that wait for an earlier one are files of
            their own, and joining them makes another one.
        files: Number of files.
    """

    likely_bytes: int
    most_bytes: int
    files: int

    @classmethod
    def of(cls, size_bytes: int, *, ratio: float = 1.0, joins: bool, parts: int = 0) -> "Need":
        """Return the need of a job.

        Args:
            size_bytes: Size of its source.
            ratio: Bytes written for each that is read.
            joins: Whether ranges are joined into one file.
            parts: How many files of ranges there may be at a time.
        """
        likely = math.ceil(size_bytes * ratio)
        return cls(likely, likely * (2 if joins else 1), parts + _OWN_FILES)


@dataclass(frozen=True, slots=True)
class Room:
    """The room of a file system, for this user.

    Attributes:
        folder: A folder of it.
        free_bytes: Bytes that may still be written.
        free_files: Files that may still be created; None if there is no such limit.
    """

    folder: str
    free_bytes: int
    free_files: int | None


def room_at(target: str | os.PathLike[str]) -> Room:
    """Return the room where a file or a folder of parts is to be written.

    Raises:
        ConfigurationError: If there is no such folder.
    """
    folder = Path(os.path.realpath(os.fspath(target).rstrip("/") or "/")).parent
    with output_errors(target):
        found = os.statvfs(folder)
    free_files = found.f_favail if found.f_files else None  # as of btrfs
    return Room(str(folder), found.f_bavail * found.f_frsize, free_files)


def check_room(
    target: str | os.PathLike[str],
    sources: Sequence[str],
    *,
    by_reference: bool = False,
    limit: int | None = None,
    model: type[BaseModel] | None = None,
) -> None:
    """Check the room for the output of files; warns if it may not suffice.

    Args:
        target: The output; nothing is checked for a pipe or a device.
        sources: The files that are read.
        by_reference: Whether workers write files of their own.
        limit: The most records to migrate; None for all.
        model: The model of the outputs, if none is left out.

    Raises:
        ConfigurationError: If the output surely does not fit.
    """
    into_parts = is_parts(target)
    if not into_parts and is_stream(target):
        return
    size_bytes = sum(map(check_source, sources))
    share = 1.0 if limit is None else min(1.0, limit / max(_count_records(sources), 1))
    parts = size_bytes // _PART_BYTES if into_parts else 0
    need = Need.of(size_bytes, ratio=share, joins=by_reference and not into_parts, parts=parts)
    room = room_at(target)
    if room.free_files is not None and room.free_files < _OWN_FILES:
        raise ConfigurationError(
            f"cannot write {os.fspath(target)}: the file system of {room.folder} has inodes left "
            f"for {room.free_files:,} files only; remove some files, or write elsewhere"
        )
    if room.free_bytes < _MOST_GROWTH * need.likely_bytes and model is not None:
        records = _count_records(sources) * share
        least = int(records * _SURE * _least_line_bytes(model))
        if room.free_bytes < least:
            raise ConfigurationError(
                f"cannot write {os.fspath(target)}: the file system of {room.folder} has "
                f"{in_bytes(room.free_bytes)} free, and the output takes {in_bytes(least)} at "
                "least, for the names of its fields alone; free some, or write elsewhere"
            )
    for doubt in _doubts(room, need):
        where = f"{os.fspath(target)} may not fit: the file system of {room.folder}"
        log(logging.WARNING, "little_room", f"{where} has {doubt}")


def _doubts(room: Room, need: Need) -> Iterator[str]:
    if room.free_bytes < need.most_bytes:
        joins = need.most_bytes > need.likely_bytes
        up_to = f", up to {in_bytes(need.most_bytes)} until ranges are joined" if joins else ""
        yield (
            f"{in_bytes(room.free_bytes)} free, and the output takes about "
            f"{in_bytes(need.likely_bytes)} if it is as large as the source{up_to}"
        )
    if room.free_files is not None and room.free_files < need.files:
        yield f"inodes left for {room.free_files:,} files, of up to {need.files:,}"


def in_bytes(size: float) -> str:
    """Return a size as text, ``"1.5 GiB"``."""
    for unit in _UNITS:
        if size < _UNIT or unit == _UNITS[-1]:
            break
        size /= _UNIT
    return f"{size:,.0f} {unit}" if unit == _UNITS[0] else f"{size:,.1f} {unit}"


def _count_records(sources: Sequence[str]) -> int:
    """Return the number of records, estimated from some lines."""
    return sample_files(sources, _LINES).records or 0


def _least_line_bytes(model: type[BaseModel]) -> int:
    """Return the least bytes of a model's JSON line: braces, names, one character a value."""
    is_plain = model.model_dump_json is BaseModel.model_dump_json
    if issubclass(model, RootModel) or serializes_itself(model) or not is_plain:
        return 2
    names = [
        min(len(name), len(info.serialization_alias or name))
        for name, info in fields_of(model).items()
        if not info.exclude and not getattr(info, "exclude_if", None)  # the latter since 2.12
    ]
    return len("{}\n") + sum(len('"":0,') + length for length in names)
