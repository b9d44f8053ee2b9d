"""Error policies: fail at the first bad record, or skip bad records up to a limit.

A policy judges failures in the order of the input, so a job on any number of workers ends at the
same record as a loop.
"""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, Self, TypeAlias

from pyrmute_tasks.engine.batch_arguments import is_function
from pyrmute_tasks.errors import ConfigurationError, ProcessDiedError
from pyrmute_tasks.failures import RecordFailure

__all__ = [
    "RAISE",
    "RAISING",
    "Capture",
    "ChunkFailures",
    "ErrorHandling",
    "ErrorPolicy",
    "FailureJudge",
    "OnError",
    "OnErrorLike",
    "OnReject",
]

_LEAST_RECORDS: Final = 1000  # before which a share of failures says little
_MAX_CRASHES: Final = 10
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?) ?%")
_NUMBER: Final = re.compile(r"\d{1,18}")


class OnError(enum.StrEnum):
    """The action on a record that fails."""

    RAISE = "raise"  # the job ends with its error
    SKIP = "skip"  # the record is left out of the output, and the job goes on

    @classmethod
    def of(cls, on_error: str) -> Self:
        """Return the member that a value means.

        Raises:
            ConfigurationError: If it means none.
        """
        try:
            return cls(on_error)
        except ValueError:
            raise ConfigurationError(
                f"on_error must be 'raise', 'skip' or an ErrorPolicy, not {on_error!r}"
            ) from None


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """The record failures that a job survives.

    Failures are judged one by one in the order of the input. Only an `Exception` is skipped: a
    step that raises `SystemExit` or `KeyboardInterrupt` ends the job.

    Attributes:
        on_error: Whether a record that fails ends the job or is skipped.
        max_errors: Most records to skip: a number, ``100`` or ``"100"``, or a share of the
            records so far, ``"0.1%"``, judged from 1,000 records on. The next failure ends the
            job. None for no limit.
        max_crashes: Most records to skip that ended the process that ran them.

    Raises:
        ConfigurationError: If a value cannot be understood, or `max_errors` limits failures that
            are not skipped.
    """

    on_error: OnError = OnError.RAISE
    max_errors: int | str | None = None
    max_crashes: int = _MAX_CRASHES

    def __post_init__(self) -> None:
        # A plain "skip" equals the member and is not it.
        object.__setattr__(self, "on_error", OnError.of(self.on_error))
        if self.max_errors is not None:
            _read_limit(self.max_errors)
            if not self.skips:
                raise ConfigurationError(
                    "max_errors limits the records that are skipped; add --on-error skip "
                    "(on_error='skip' in Python)"
                )
        if type(self.max_crashes) is not int or self.max_crashes < 0:
            raise ConfigurationError(f"max_crashes must be 0 or more, not {self.max_crashes!r}")

    @classmethod
    def skip(cls, max_errors: int | str | None = None, max_crashes: int = _MAX_CRASHES) -> Self:
        """Return a policy that skips records that fail, up to a limit.

        Args:
            max_errors: Most records to skip: a number, or a share as ``"0.1%"``; None for no limit.
            max_crashes: Most records to skip that ended the process that ran them.

        Returns:
            The policy.

        Raises:
            ConfigurationError: If a limit cannot be understood.
        """
        return cls(OnError.SKIP, max_errors, max_crashes)

    @classmethod
    def of(cls, on_error: "OnErrorLike") -> "ErrorPolicy":
        """Return the policy for an `on_error` argument.

        Args:
            on_error: ``"raise"``, ``"skip"``, or a policy.

        Returns:
            The policy.

        Raises:
            ConfigurationError: If it means none.
        """
        if isinstance(on_error, ErrorPolicy):
            return on_error
        return ErrorPolicy(OnError.of(on_error))

    @property
    def skips(self) -> bool:
        """Whether records that fail are skipped."""
        return self.on_error is OnError.SKIP


OnErrorLike: TypeAlias = Literal["raise", "skip"] | OnError | ErrorPolicy
"""What a caller may give as ``on_error``."""

OnReject: TypeAlias = Callable[[RecordFailure], object]
"""Called with the failure of each record that is skipped."""

RAISE: Final = ErrorPolicy()


class FailureJudge:
    """Judges the failures of one job, in the order of the input.

    Args:
        policy: The policy.

    Attributes:
        exceeded: The limit that ended the job, in words; empty if none did.
    """

    def __init__(self, policy: ErrorPolicy) -> None:
        self.exceeded: str = ""
        self._policy = policy
        self._limit = _read_limit(policy.max_errors)
        self._errors = self._crashes = 0

    def restore(self, errors: int, crashes: int) -> None:
        """Go on from records that an earlier run of the job has skipped.

        Args:
            errors: How many there were.
            crashes: How many of them ended the process that ran them.
        """
        self._errors, self._crashes = errors, crashes

    def __call__(self, failure: RecordFailure) -> bool:
        """Return whether to skip the record; a False ends the job."""
        if not _may_skip(self._policy.skips, failure):
            return False
        self._errors += 1
        self._crashes += isinstance(failure.error, ProcessDiedError)
        self.exceeded = self._find_exceeded(failure.index + 1)
        return not self.exceeded

    def _find_exceeded(self, records: int) -> str:
        limit, errors = self._limit, self._errors
        if isinstance(limit, int) and errors > limit:
            return f"more than {limit:,} records failed, the limit of max_errors"
        if isinstance(limit, Fraction) and records >= _LEAST_RECORDS and errors > limit * records:
            share = self._policy.max_errors
            return f"{errors:,} of {records:,} records failed, more than max_errors of {share}"
        if self._crashes > self._policy.max_crashes:
            return (
                f"more than {self._policy.max_crashes:,} records ended the process that ran them, "
                "the limit of max_crashes"
            )
        return ""


Capture: TypeAlias = Callable[[RecordFailure, int], RecordFailure]
"""Returns a failure that later records do not change; its number in the chunk is given, too."""


class ChunkFailures:
    """Collects the failures of one chunk, where the chunk runs.

    How many a job survives is judged where chunks are delivered in order.

    Args:
        skips: Whether to go on behind a record that fails.
        capture: Makes a failure independent of the records that follow, which may change what
            its exception refers to. It is given the failure and how many there were before.

    Attributes:
        found: The failures, in order.
        ended: Whether the last one ended the run of the chunk.
    """

    def __init__(self, skips: bool, capture: Capture) -> None:
        self.found: list[RecordFailure] = []
        self.ended: bool = False
        self._skips = skips
        self._capture = capture

    def __call__(self, failure: RecordFailure) -> bool:
        """Return whether to skip the record."""
        self.found.append(self._capture(failure, len(self.found)) if self._skips else failure)
        self.ended = not _may_skip(self._skips, failure)
        return not self.ended

    def end(self, failure: RecordFailure) -> None:
        """Add a failure that ends the run under any policy."""
        self.found.append(failure)
        self.ended = True


def _may_skip(skips: bool, failure: RecordFailure) -> bool:
    # A loop would not go on behind an exit or an interrupt, either.
    return skips and isinstance(failure.error, Exception)


@dataclass(frozen=True, slots=True)
class ErrorHandling:
    """A policy, and the callback for the records it skips.

    Attributes:
        policy: The policy.
        on_reject: Called with the failure of each record that is skipped, in order.

    Raises:
        ConfigurationError: If `on_reject` is not a function, or no record is ever skipped of which
            it could be told.
    """

    policy: ErrorPolicy = RAISE
    on_reject: OnReject | None = None

    def __post_init__(self) -> None:
        if self.on_reject is not None and not is_function(self.on_reject):
            # Now, and not at the first record that fails, hours later.
            is_async = callable(self.on_reject)
            shown = "an asynchronous one" if is_async else type(self.on_reject).__name__
            raise ConfigurationError(
                "on_reject must be a function that takes a RecordFailure, as list.append is, not "
                f"{shown}; files of rejects are written by migrate_file"
            )
        if self.on_reject is not None and not self.policy.skips:
            raise ConfigurationError(
                "on_reject is called with records that are skipped; add on_error='skip'"
            )

    @classmethod
    def of(cls, on_error: OnErrorLike, on_reject: OnReject | None) -> Self:
        """Return the error handling for a call's arguments.

        Raises:
            ConfigurationError: If the arguments contradict each other.
        """
        return cls(ErrorPolicy.of(on_error), on_reject)

    def tell(self, failure: RecordFailure) -> None:
        """Report a skipped record to the callback."""
        if self.on_reject is not None:
            self.on_reject(failure)


RAISING: Final = ErrorHandling()


def _read_limit(max_errors: int | str | None) -> int | Fraction | None:
    if max_errors is None:
        return None
    text = str(max_errors).strip() if type(max_errors) in (int, str) else ""
    if _NUMBER.fullmatch(text):
        return int(text)
    share = _PERCENT.fullmatch(text)
    if share is not None and (limit := Fraction(share[1]) / 100) <= 1:
        return limit
    raise ConfigurationError(
        f"max_errors must be a number such as 100 or a share such as '0.1%', not {max_errors!r}"
    )
