"""Record failures as plain values, for sending to another process."""

import traceback
from dataclasses import dataclass, field
from typing import Any, Final

from pyrmute_tasks.errors import RemoteError
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.wire.remote_errors import put_together, take_apart

__all__ = [
    "CapturedFailure",
    "capture_failure",
    "failure_from_wire",
    "failure_to_wire",
    "without_error",
]

_MAX_TRACEBACK: Final = 20_000
_NOT_AVAILABLE: Final = "not available"
_MOST_TRACEBACKS: Final = 20  # of a chunk: each of its records may have failed


@dataclass(frozen=True, slots=True)
class CapturedFailure(RecordFailure):
    """A failure with its exception as it was when it was raised, as plain values."""

    parts: list[dict[str, Any]] = field(kw_only=True, repr=False)


def capture_failure(failure: RecordFailure, number: int) -> CapturedFailure:
    """Return a failure that is sent as it is now, whatever its exception refers to by then.

    Args:
        failure: The failure.
        number: How many there were before it in its chunk; only the first have tracebacks.

    Returns:
        The failure, to be sent by `failure_to_wire`.
    """
    error, text = failure.error, failure.traceback
    try:
        parts = take_apart(error)
        if number < _MOST_TRACEBACKS:
            text = text or _traceback_of(error)
    except Exception:  # the user's class may raise even when it is inspected
        parts, text = take_apart(_stand_in_for(error)), _NOT_AVAILABLE
    return CapturedFailure(
        failure.index,
        failure.stage,
        failure.step,
        error,
        failure.raised_at,
        failure.source,
        failure.worker,
        text,
        parts=parts,
    )


def without_error(failure: RecordFailure) -> RecordFailure:
    """Return a failure with the name of its exception only, for one that cannot be sent."""
    return RecordFailure(
        failure.index,
        failure.stage,
        failure.step,
        _stand_in_for(failure.error),
        failure.raised_at,
        worker=failure.worker,
        traceback=_NOT_AVAILABLE,
    )


def _stand_in_for(error: BaseException) -> RemoteError:
    kind = type(error)
    return RemoteError(f"{kind.__module__}.{kind.__qualname__}", "")


def failure_to_wire(failure: RecordFailure, number: int = 0) -> dict[str, Any]:
    """Return a failure as plain values for `frames.pack` with ``lossy=True``.

    Args:
        failure: The failure.
        number: How many there were before it in its chunk, if it was not captured before.
    """
    captured = failure if isinstance(failure, CapturedFailure) else capture_failure(failure, number)
    return {
        "index": captured.index,
        "stage": captured.stage.value,
        "step": captured.step,
        "errors": captured.parts,
        "raised_at": captured.raised_at,
        "worker": captured.worker,
        "traceback": captured.traceback,
    }


def failure_from_wire(data: dict[str, Any]) -> RecordFailure:
    """Rebuild a failure from `failure_to_wire`'s values.

    Raises:
        KeyError: If something is missing.
    """
    error = put_together(data["errors"])
    return RecordFailure(
        data["index"],
        Stage(data["stage"]),
        data["step"],
        error,
        data["raised_at"],
        worker=data["worker"],
        traceback=data["traceback"],
    )


def _traceback_of(error: BaseException) -> str:
    # The end says what happened; a recursion without end has a long beginning.
    try:
        return "".join(traceback.format_exception(error))[-_MAX_TRACEBACK:]
    except Exception:  # notes that are none
        return "".join(traceback.format_tb(error.__traceback__))[-_MAX_TRACEBACK:]
