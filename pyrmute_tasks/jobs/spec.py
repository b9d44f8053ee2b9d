"""The spec of a job: ``spec.json``, written once at its creation, and compared when it resumes."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias

from pyrmute_tasks.errors import (
    ConfigurationError,
    JobChangedError,
    JobFormatError,
    JobLogError,
    printable,
)
from pyrmute_tasks.jobs.checked import cannot_be, check_fields, is_sound
from pyrmute_tasks.jobs.documents import object_of, write_whole
from pyrmute_tasks.jobs.entries import FORMAT, OPEN_END, Range
from pyrmute_tasks.jobs.storage import Storage
from pyrmute_tasks.jobs.terms import Terms

__all__ = [
    "JOB_ID",
    "SPEC",
    "CodeChanged",
    "Difference",
    "OptionChanged",
    "Parent",
    "SourceChanged",
    "SourceFile",
    "SourcesChanged",
    "Spec",
    "check_same",
    "differences",
    "read_spec",
    "write_spec",
]

SPEC: Final = "spec.json"
JOB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""What the id of a job looks like, which is the name of its folder in a jobs root."""

_HEAD_BYTES: Final = 64 * 1024
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a job's source, as at the job's creation.

    Attributes:
        path: Where it is.
        size_bytes: Its size; -1 if unknown.
        version: A value that differs after a change: its mtime in nanoseconds, or an etag.
        head_digest: Digest of its first 64 KiB.
    """

    path: str
    size_bytes: int
    version: str
    head_digest: str

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "SourceFile":
        """Return a local file as it is now.

        Raises:
            OSError: If it cannot be read.
        """
        with Path(path).open("rb") as file:
            found = os.fstat(file.fileno())
            head = hashlib.blake2b(file.read(_HEAD_BYTES), digest_size=_DIGEST_BYTES)
        shown = os.path.abspath(path)
        return cls(shown, found.st_size, str(found.st_mtime_ns), head.hexdigest())


class Parent(NamedTuple):
    """A job whose rejects another one retries.

    Attributes:
        job: Its id.
        fingerprint: Root of the tree of fingerprints of its code.
    """

    job: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Spec:
    """The spec of a job.

    Attributes:
        job: Its id.
        sources: The files of its source, in order; a range names one by its number.
        target: Where its output goes.
        plan: Model, from and to version.
        fingerprint: Root of the tree of fingerprints.
        code: The whole tree, as text, to name what differs.
        options: Further options that affect the result, such as the error policy.
        is_parts: Whether the target is a folder of parts.
        only: The ranges it is about, such as the first records; empty for all of the source.
        parents: The jobs whose rejects it retries, the first one first.
        created_at: When, in seconds since 1970.
        created_by: By whom, as ``user@host``.
        terms: What else was asked for, if it was submitted; None for a run in the foreground.
    """

    job: str
    sources: tuple[SourceFile, ...]
    target: str
    plan: tuple[str, str, str]
    fingerprint: str
    code: str = ""
    options: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    is_parts: bool = False
    only: tuple[Range, ...] = ()
    parents: tuple["Parent", ...] = ()
    created_at: float = 0.0
    created_by: str = ""
    terms: Terms | None = None

    @property
    def wanted(self) -> tuple[Range, ...]:
        """The ranges that must be settled, in source order."""
        return self.only or tuple(
            Range(number, 0, OPEN_END if each.size_bytes < 0 else each.size_bytes)
            for number, each in enumerate(self.sources)
            if each.size_bytes
        )

    @property
    def lineage(self) -> tuple["Parent", ...]:
        """The jobs that made the output: those it retries, and this one."""
        return (*self.parents, Parent(self.job, self.fingerprint))


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """A source file has changed.

    Attributes:
        path: The file.
        how: The difference.
    """

    path: str
    how: str

    def __str__(self) -> str:
        return f"{self.path} {self.how}"


@dataclass(frozen=True, slots=True)
class SourcesChanged:
    """The source consists of other files.

    Attributes:
        missing: Files that it no longer has.
        added: Files that it has now.
    """

    missing: tuple[str, ...]
    added: tuple[str, ...]

    def __str__(self) -> str:
        told = [f"{path} is missing" for path in self.missing]
        told += [f"{path} is new" for path in self.added]
        return "; ".join(told) or "the files of the source are in another order"


@dataclass(frozen=True, slots=True)
class CodeChanged:
    """Models or steps have changed.

    Attributes:
        before: The job's root fingerprint.
        now: Today's.
        before_tree: The job's tree of fingerprints, from which the difference can be named.
    """

    before: str
    now: str
    before_tree: str

    def __str__(self) -> str:
        return f"the code of models or steps has changed (fingerprint {self.before} → {self.now})"


@dataclass(frozen=True, slots=True)
class OptionChanged:
    """The target, the plan or an option has changed.

    Attributes:
        name: Which.
        before: The job's value.
        now: Today's.
    """

    name: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} was {self.before}, and is {self.now}"


Difference: TypeAlias = SourceChanged | SourcesChanged | CodeChanged | OptionChanged
"""A reason not to go on with a job."""


def differences(spec: Spec, now: Spec) -> list[Difference]:
    """Return the differences between a job's spec and the current arguments."""
    found: list[Difference] = [*_source_differences(spec.sources, now.sources)]
    if spec.fingerprint != now.fingerprint:
        found.append(CodeChanged(spec.fingerprint, now.fingerprint, spec.code))
    pairs = [("the target", spec.target, now.target)]
    pairs.append(("whether it is a folder", str(spec.is_parts), str(now.is_parts)))
    pairs.append(("the plan", " ".join(spec.plan), " ".join(now.plan)))
    pairs += [
        (name, _shown(spec.options.get(name)), _shown(now.options.get(name)))
        for name in sorted({*spec.options, *now.options})
    ]
    found += [OptionChanged(*each) for each in pairs if each[1] != each[2]]
    return found


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def check_same(spec: Spec, now: Spec, *, accept_code: bool = False) -> list[Difference]:
    """Check that a job may resume; return the accepted differences to the current arguments.

    Args:
        spec: The job.
        now: The spec by the current arguments.
        accept_code: Go on with other code; the log's `open` entry then says with which.

    Raises:
        JobChangedError: If there are others; all are named.
    """
    found = differences(spec, now)
    refused = [each for each in found if not (accept_code and isinstance(each, CodeChanged))]
    if refused:
        told = "; ".join(printable(each) for each in refused)
        raise JobChangedError(f"job {spec.job} cannot resume: {told}")
    return found


def _source_differences(
    before: Sequence[SourceFile], now: Sequence[SourceFile]
) -> Iterator[Difference]:
    old, new = [each.path for each in before], [each.path for each in now]
    if old != new:
        missing = tuple(path for path in old if path not in set(new))
        yield SourcesChanged(missing, tuple(path for path in new if path not in set(old)))
    by_path = {each.path: each for each in now}
    for each in before:
        other = by_path.get(each.path)
        how = _how_changed(each, other) if other is not None else ""
        if how:
            yield SourceChanged(each.path, how)


def _how_changed(before: SourceFile, now: SourceFile) -> str:
    if before.size_bytes != now.size_bytes:
        return f"had {before.size_bytes} bytes, and has {now.size_bytes}"
    if before.head_digest != now.head_digest:
        return "begins with other bytes"
    if before.version != now.version:
        return "has been written since"
    return ""


def write_spec(storage: Storage, spec: Spec) -> None:
    """Write a job's spec atomically.

    Raises:
        ConfigurationError: If a value is one that nobody could read again.
        OSError: If it cannot be written.
    """
    try:
        _check(spec)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    terms = None if spec.terms is None else spec.terms.as_fields()
    write_whole(storage, SPEC, {"format": FORMAT, **asdict(spec), "terms": terms})


def read_spec(storage: Storage) -> Spec:
    """Read a job's spec.

    Raises:
        FileNotFoundError: If there is no job.
        JobFormatError: If a newer version has written it.
        JobLogError: If it cannot be read.
    """
    data = storage.read(SPEC)
    try:
        found: dict[str, Any] = object_of(data)
        _check_format(found.pop("format"))
        found["sources"] = tuple(SourceFile(**each) for each in found["sources"])
        found["only"] = tuple(Range(*each) for each in found["only"])
        found["parents"] = tuple(Parent(*each) for each in found["parents"])
        model, before, after = found["plan"]
        terms = found.get("terms")  # the first format has none
        found["terms"] = None if terms is None else Terms.of(terms)
        spec = Spec(**{**found, "plan": (model, before, after)})
        _check(spec)
    except (ValueError, TypeError, KeyError, RecursionError, ConfigurationError) as error:
        raise JobLogError(
            f"{SPEC} is damaged ({type(error).__name__}): restore it, or start the job again"
        ) from error
    return spec


def _check_format(written: object) -> None:
    if type(written) is not int:
        raise ValueError("the format is no number")
    if written > FORMAT:
        raise JobFormatError(
            f"{SPEC} has format {written}, and this version reads up to {FORMAT}: use the "
            "version that wrote it, or a newer one"
        )


def _check(spec: Spec) -> None:
    """Check the types and values of a spec's fields.

    Raises:
        ValueError: If one is wrong.
    """
    for each in (spec, *spec.sources, *(() if spec.terms is None else (spec.terms,))):
        check_fields(each)
    if not isinstance(spec.options, dict):
        raise ValueError("the options are none")  # noqa: TRY004  # of a file, not of an argument
    texts = [*spec.plan, *(part for parent in spec.parents for part in parent), *spec.options]
    numbers = [part for each in spec.only for part in each]
    for name, value in spec.options.items():
        if not is_sound(value, (str, int, float, bool, NoneType)):
            raise ValueError(cannot_be(name, value))
    kinds = ((texts, (str,)), (numbers, (int,)))
    if not all(is_sound(each, kind) for values, kind in kinds for each in values):
        raise ValueError("a part has a value that it cannot have")
    if not JOB_ID.fullmatch(spec.job) or not spec.sources:
        raise ValueError("it has no id, or no source")
