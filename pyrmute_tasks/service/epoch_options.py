"""The options of an epoch, by its job's spec and terms and by its users' wishes."""

from typing import Any

from pyrmute_tasks.engine.error_policy import ErrorHandling, ErrorPolicy, OnError
from pyrmute_tasks.engine.pace import Pace
from pyrmute_tasks.file_options import ByReference, FileOptions
from pyrmute_tasks.io.log_options import LogOptions
from pyrmute_tasks.jobs.fold import Fold
from pyrmute_tasks.jobs.spec import Spec
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.want import Want

__all__ = ["holds_output", "options_of"]


def holds_output(terms: Terms, want: Want) -> bool:
    """Return whether a job's output is to be held."""
    return terms.hold and want.wish is not Wish.PUBLISH


def options_of(spec: Spec, terms: Terms, want: Want, fold: Fold) -> FileOptions:
    """Return the options of an epoch's run.

    Args:
        spec: The job.
        terms: What its submitter asked for.
        want: What its users want now.
        fold: What is settled of it.

    Raises:
        ConfigurationError: If a value makes no sense.
    """
    options: dict[str, Any] = dict(spec.options)
    return FileOptions(
        source=spec.sources[0].path,
        target=f"{spec.target}/" if spec.is_parts else spec.target,
        chunk_size=terms.chunk_size,
        limit=options.get("limit"),
        overwrite=terms.overwrite,
        hold=holds_output(terms, want),
        backup=terms.backup,
        by_reference=_way(spec, terms, fold),
        max_line_bytes=options.get("max_line_bytes"),
        errors=ErrorHandling(_policy(options, want)),
        rejects=options.get("rejects"),
        rejects_with_records=bool(options.get("rejects_with_records")),
        log=LogOptions(resume=fold.ranges > 0),
        pace=Pace(want.max_rate or None),
    )


def _policy(options: dict[str, Any], want: Want) -> ErrorPolicy:
    on_error = OnError.of(options.get("on_error") or OnError.RAISE)
    most = options.get("max_errors")
    if want.max_errors and on_error is OnError.SKIP:
        most = want.max_errors
    return ErrorPolicy(on_error, most, options.get("max_crashes") or 0)


def _way(spec: Spec, terms: Terms, fold: Fold) -> ByReference:
    """Return which way to go: what has gaps in the middle can only go on by reference."""
    gaps = list(fold.gaps(spec.wanted))
    is_beginning = not gaps or (len(gaps) == 1 and gaps[0].end == spec.wanted[-1].end)
    return ByReference(terms.by_reference) if is_beginning else ByReference.ALWAYS
