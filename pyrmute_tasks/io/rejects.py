"""The rejects of a job as JSON lines: one for each record that was skipped, in order."""

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pydantic_core

from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.job_targets import is_parts
from pyrmute_tasks.io.open_files import SourceFile, TargetFile, refuse_same_file
from pyrmute_tasks.io.output_file import Output, open_output
from pyrmute_tasks.io.output_place import Place, check_output
from pyrmute_tasks.io.range_source import find_sources, refuse_among_sources

__all__ = [
    "RejectsFile",
    "check_asked_for",
    "check_rejects",
    "rejects_to_lines",
]


def check_rejects(
    path: str | os.PathLike[str] | None,
    policy: ErrorPolicy,
    *,
    source: SourceFile,
    target: TargetFile,
    overwrite: bool = True,
    with_records: bool = False,
) -> None:
    """Check that a file can take the rejects of a job, if one is given.

    Raises:
        ConfigurationError: If it cannot be written, is a source or the target of the job or in
            its folder of parts, or there will be no rejects; or if records are to be written to
            no file.
    """
    check_asked_for(path, policy, with_records=with_records)
    if path is None:
        return
    if isinstance(source, (str, os.PathLike)):
        for name in find_sources(source):
            check_output(path, source=name)
    else:
        refuse_same_file(source, path)
    place = check_output(path, overwrite=overwrite)
    if isinstance(source, (str, os.PathLike)):
        refuse_among_sources(path, place.path, source)
    if not isinstance(target, (str, os.PathLike)):
        return
    if is_parts(target):
        if Path(os.path.realpath(target)) in place.path.parents:
            raise ConfigurationError(
                f"cannot write the rejects to {os.fspath(path)}: it is in the output's folder, "
                "which is replaced; name a file elsewhere"
            )
    elif _is_one(place, check_output(target)):
        raise ConfigurationError(
            f"cannot write the rejects to {os.fspath(path)}: it is the output; name another file"
        )


def check_asked_for(path: object, policy: ErrorPolicy, *, with_records: bool = False) -> None:
    """Check that a file of rejects makes sense, whatever is on the disk.

    Raises:
        ConfigurationError: If it is none, there will be no rejects, or their records are wanted in
            no file.
    """
    if path is None:
        if with_records:
            raise ConfigurationError(
                "the records of rejects need a file; add --rejects FILE (rejects=… in Python)"
            )
        return
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(f"rejects must be the path of a file, not a {type(path).__name__}")
    if not policy.skips:
        raise ConfigurationError(
            "rejects are records that are skipped; add --on-error skip (on_error='skip' in Python)"
        )


def _is_one(place: Place, other: Place) -> bool:
    """Return whether two places are one file or pipe, where writes to both would mix."""
    if not place.is_stream or place.found is None:
        return place.path == other.path
    is_device = stat.S_ISCHR(place.found.st_mode)  # a terminal, or /dev/null
    is_same = other.found is not None and os.path.samestat(place.found, other.found)
    return is_same and not is_device


class RejectsFile:
    """A file of rejects, which appears when it is whole, as the output does; a context manager.

    Args:
        path: The file, or a pipe or device.
        job: The job's id.
        source: The file that is read.
        overwrite: Replace a file that exists.
        keep_partial: Keep what was written when the job fails.
        with_records: Write the records, and what errors quote from them.

    Raises:
        ConfigurationError: If the file cannot be written, or must not be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        job: str,
        source: SourceFile,
        overwrite: bool = True,
        keep_partial: bool = False,
        with_records: bool = False,
    ) -> None:
        self._output: Output = open_output(
            path, job=job, source=source, overwrite=overwrite, keep_partial=keep_partial
        )
        self._with_records = with_records

    def __enter__(self) -> Self:
        """Create the file.

        Raises:
            OutputInUseError: If another run is writing it.
            ConfigurationError: If it cannot be written.
        """
        self._output.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._output.__exit__(kind, error, traceback)

    def write(self, rejects: Iterable[RecordFailure]) -> None:
        """Append rejects.

        Raises:
            ConfigurationError: If they cannot be written.
        """
        lines = rejects_to_lines(rejects, with_records=self._with_records)
        if lines:
            self._output.write(lines)

    def commit(self) -> None:
        """Move the file to its final name.

        Raises:
            ConfigurationError: If it cannot be written.
        """
        self._output.commit()


def rejects_to_lines(rejects: Iterable[RecordFailure], *, with_records: bool = False) -> bytes:
    """Return rejects as JSON lines.

    Args:
        rejects: The failures of records that were skipped.
        with_records: Include the records, and what errors quote from them.
    """
    return b"".join(_to_line(reject, with_records=with_records) for reject in rejects)


def _to_line(reject: RecordFailure, *, with_records: bool) -> bytes:
    place = reject.place
    values: dict[str, Any] = {
        "index": reject.index if reject.index >= 0 else None,  # of a job that is not done
        "file": place.file if place else None,
        "line": (place.line or None) if place else None,
        "offset": place.offset if place else None,
        "length": place.length if place else None,
        "digest": place.digest if place else None,
        "step": reject.step or None,
        "type": reject.type_name,
        "message": reject.describe(with_text=with_records),
        "field": reject.field or None,
    }
    text = json.dumps(values, ensure_ascii=False)
    if with_records:
        record = place.text if place else None
        text = f'{text[:-1]}, "record": {_record(record)}}}'
    # A file's name may hold bytes that are no UTF-8; an escape stands for them in JSON.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _record(line: bytes | None) -> str:
    """Return a line as JSON: its value, or a string if it is not JSON."""
    if line is None:
        return "null"
    try:
        pydantic_core.from_json(line, allow_inf_nan=False)
        return line.decode().strip()
    except ValueError:
        return json.dumps(line.decode("utf-8", "backslashreplace"), ensure_ascii=False)
