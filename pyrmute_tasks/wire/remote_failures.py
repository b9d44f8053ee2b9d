"""Record failures as plain values, for sending to another process."""

import traceback
from typing import Any, Final

from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.wire.remote_errors import put_together, take_apart

__all__ = ["failure_from_wire", "failure_to_wire"]

_MAX_TRACEBACK: Final = 20_000


def failure_to_wire(failure: RecordFailure, *, with_traceback: bool = True) -> dict[str, Any]:
    """Return a failure as plain values for `frames.pack` with ``lossy=True``."""
    traceback_text = failure.traceback or _traceback_of(failure.error) if with_traceback else ""
    return {
        "index": failure.index,
        "stage": failure.stage.value,
        "step": failure.step,
        "errors": take_apart(failure.error),
        "raised_at": failure.raised_at,
        "worker": failure.worker,
        "traceback": traceback_text,
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
