"""The report of a dry run, as data and as JSON."""

import enum
import json
from dataclasses import asdict, dataclass
from typing import Final

from pyrmute_tasks.audit.report import LossKind

__all__ = [
    "CONFIDENCE",
    "ChangeKind",
    "DryRun",
    "FailureCause",
    "FieldChange",
    "LostField",
    "PlannedHop",
    "PlannedRoom",
    "Timing",
]

CONFIDENCE: Final = 0.95
"""Confidence of the upper bounds of failures."""


class ChangeKind(enum.StrEnum):
    """The kind of a difference between the fields of two models."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field in which the models of a hop differ.

    Attributes:
        field: Its name.
        kind: The kind of the difference.
        before: Its type in the earlier model; empty if that has none.
        after: Its type in the later model; empty if that has none.
    """

    field: str
    kind: ChangeKind
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PlannedHop:
    """A hop of the path, with its step.

    Attributes:
        from_version: Version before it.
        to_version: Version behind it.
        function: The step's function, as it is called in its module; empty if it is generated.
        file: The file that defines it; empty if unknown.
        line: The line there; 0 if unknown.
        changes: The fields in which the two models differ; none if one of them is not registered.
    """

    from_version: str
    to_version: str
    function: str
    file: str
    line: int
    changes: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Records of the sample that fail for the same cause.

    Attributes:
        cause: The cause, ``"step 1.0.0 → 2.0.0: KeyError"``.
        described: What happened to the first of them, with the place in the code.
        records: Number of them in the sample.
        at_most: Upper bound of their share of the source, at 95 % confidence.
        first: Where the first of them stands, ``"in.jsonl, line 7"``.
    """

    cause: str
    described: str
    records: int
    at_most: float
    first: str


@dataclass(frozen=True, slots=True)
class LostField:
    """A field of records that has no influence on the output.

    Attributes:
        field: The field's dotted path.
        kind: Where it is lost.
        records: Number of records in the sample that have it.
        share: Their share of the sample, from 0 to 1.
        first: Where the first of them stands.
    """

    field: str
    kind: LossKind
    records: int
    share: float
    first: str


@dataclass(frozen=True, slots=True)
class Timing:
    """The estimated time of the run with a number of workers.

    Attributes:
        workers: Number of workers, each on a processor as fast as this one.
        seconds: The estimate, without starting workers.
        chunks: Number of chunks, or of ranges.
        is_limit: Whether the coordinator sets it, and more workers do not help.
    """

    workers: int
    seconds: float
    chunks: int
    is_limit: bool


@dataclass(frozen=True, slots=True)
class PlannedRoom:
    """The room that the run needs, and the room there is.

    Attributes:
        folder: A folder of the target's file system.
        likely_bytes: What the output will take.
        most_bytes: What is needed for a while, until ranges are joined.
        free_bytes: What this user may still write there.
        files: Number of files, at most.
        free_files: Files that may still be created; None if there is no such limit.
        store_bytes: What the store holds at most.
    """

    folder: str
    likely_bytes: int
    most_bytes: int
    free_bytes: int
    files: int
    free_files: int | None
    store_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the output fits, as far as the sample can tell."""
        has_files = self.free_files is None or self.files <= self.free_files
        return self.likely_bytes <= self.free_bytes and has_files


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run.

    Attributes:
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        hops: The path.
        records: Number of records in the sample.
        total: Number of records in the source, estimated from the sample if it is no whole; None
            if unknown.
        size_bytes: Size of the source; None for a pipe.
        is_whole: Whether the sample is the whole source.
        failed: Number of records in the sample that fail.
        failed_at_most: Upper bound of their share of the source, at 95 % confidence; exact if the
            sample is the whole source.
        failures: The records that fail, by cause, those of most records first.
        losses: The fields that get lost.
        seconds_per_record: Time of a record in one process.
        bytes_per_byte: Size of the output for each byte of the source.
        by_reference: Whether workers read and write the files themselves.
        timings: Time with 1, 4, 16 and 64 workers; none for a pipe.
        room: The room for the output; None for a pipe or a device, or from a pipe.
        seconds: Duration of the dry run.
    """

    name: str
    from_version: str
    to_version: str
    hops: tuple[PlannedHop, ...]
    records: int
    total: int | None
    size_bytes: int | None
    is_whole: bool
    failed: int
    failed_at_most: float
    failures: tuple[FailureCause, ...]
    losses: tuple[LostField, ...]
    seconds_per_record: float
    bytes_per_byte: float
    by_reference: bool
    timings: tuple[Timing, ...]
    room: PlannedRoom | None
    seconds: float

    def to_json(self) -> str:
        """Return the report as JSON.

        Returns:
            The report as indented JSON.
        """
        fits = None if self.room is None else self.room.fits
        return json.dumps(asdict(self) | {"fits": fits}, indent=2, ensure_ascii=False)
