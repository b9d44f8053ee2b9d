"""Steering submitted jobs: pause, resume, cancel, and other limits.

Each changes ``want.json`` of the job's folder, and says who wanted that, where, when and why. The
job's driver looks at it about once a second, logs it and obeys; nobody waits for that here.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.engine.pace import Pace
from pyrmute_tasks.errors import ConfigurationError, JobChangedError, JobError, printable
from pyrmute_tasks.io.earlier_runs import code_differences
from pyrmute_tasks.jobs.driver import Driver, this_user
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import (
    MOST_REASON,
    WANT,
    FoundWant,
    Want,
    check_reason,
    locked,
    read_submitted,
    unknown_wish,
    write_wish,
)

if TYPE_CHECKING:  # what accepts no code needs none
    from pyrmute_tasks.pyrmute_adapter import FleetManager

__all__ = [
    "NO_BOUND",
    "Bound",
    "Code",
    "Limits",
    "cancel",
    "code_of",
    "pause",
    "resume",
    "set_limits",
]

NO_BOUND: Final = "none"
"""Takes a bound away."""

Bound: TypeAlias = Literal["none"]
"""The value of a limit that takes its bound away."""

_OTHER_LIMITS: Final = "; other limits by "


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Other limits of a job; None leaves one as it is, ``"none"`` takes its bound away.

    Attributes:
        max_rate: Records a second, at most.
        window: Chunks in flight, at most.
        max_errors: Rejects allowed: a number, or a share such as ``"0.1%"``.

    Raises:
        ConfigurationError: If a value makes no sense, or there is none at all.
    """

    max_rate: float | Bound | None = None
    window: int | Bound | None = None
    max_errors: int | str | None = None

    def __post_init__(self) -> None:
        if self.max_rate is None and self.window is None and self.max_errors is None:
            raise ConfigurationError(
                "name a limit to set: --max-rate, --window or --max-errors (max_rate, window or "
                "max_errors in Python)"
            )
        if self.max_rate not in (None, NO_BOUND, 0):
            Pace(self.max_rate)  # type: ignore[arg-type]  # a text is refused there
        is_window = type(self.window) is int and self.window >= 0
        if not (is_window or self.window in (None, NO_BOUND)):
            raise ConfigurationError(f"window must be 1 chunk or more, not {self.window!r}")
        if self.max_errors not in (None, NO_BOUND):
            ErrorPolicy.skip(self.max_errors)

    def over(self, want: Want) -> Want:
        """Return wishes with these limits in place of theirs."""
        changed: dict[str, object] = {}
        if self.max_rate is not None:
            changed["max_rate"] = 0.0 if self.max_rate == NO_BOUND else float(self.max_rate)
        if self.window is not None:
            changed["window"] = 0 if self.window == NO_BOUND else int(self.window)
        if self.max_errors is not None:
            changed["max_errors"] = str(self.max_errors)
        return replace(want, **changed)  # type: ignore[arg-type]  # by name above


@dataclass(frozen=True, slots=True)
class Code:
    """Today's code of a job.

    Attributes:
        fingerprint: Root of its tree of fingerprints.
        tree: The whole tree, as text.
    """

    fingerprint: str
    tree: str


def code_of(manager: "FleetManager", folder: JobFolder) -> Code:
    """Return a manager's code of a job's migration, as it is today.

    Raises:
        PyrmuteTasksError: If it has no such migration any more.
    """
    plan = manager.plan(*folder.spec.plan)
    return Code(plan.fingerprint, json.dumps(plan.fingerprint_tree.to_dict()))


def pause(folder: JobFolder, why: str = "") -> Want:
    """Ask for a job to pause; what is under way is withdrawn, and done again later.

    It does that even if its wishes cannot be read. Code that was accepted may be lost with them;
    `resume` asks for it.

    Args:
        folder: The job.
        why: The reason, for people.

    Returns:
        The wishes for it now.

    Raises:
        JobError: If it has ended, or somebody has cancelled it.
        ConfigurationError: If the user may not steer it.
    """
    with _changing(folder) as (view, found):
        want = found.want
        _refuse_ended(folder, view, "pause")
        _refuse_cancelled(folder, want, "pause")
        return _write(folder, view, replace(want, wish=Wish.PAUSE), why)


def resume(
    folder: JobFolder, why: str = "", *, code: Code | None = None, accept_code: bool = False
) -> Want:
    """Ask for a job to go on that is paused, was suspended, or has failed.

    Args:
        folder: The job.
        why: The reason, for people.
        code: Today's code, to be compared with the job's; None for that of the job.
        accept_code: Go on with it although it is another one.

    Returns:
        The wishes for it now.

    Raises:
        JobError: If it goes on anyway, has succeeded, was cancelled, or the code that was accepted
            for it is lost and none is given.
        JobChangedError: If the code is another one, and not accepted.
        ConfigurationError: If the user may not steer it.
    """
    with _changing(folder) as (view, found):
        want = found.want
        if view.state is not LoggedState.FAILED:
            _refuse_ended(folder, view, "resume")
        _refuse_cancelled(folder, want, "resume")
        wanted = want if code is None else _with_code(folder, want, code, accept_code=accept_code)
        _refuse_lost_code(folder, wanted, found.problem)
        if wanted == want and not found.problem:  # else nobody goes on with it
            _refuse_going(folder, view, want)
        # Somebody may have published it by hand, and been killed: a coordinator goes on with that.
        # Also if it was paused meanwhile.
        publishes = want.wish is Wish.PUBLISH or view.is_to_publish
        wish = Wish.PUBLISH if publishes and not _is_held(view) else Wish.RUN
        return _write(folder, view, replace(wanted, wish=wish), why)


def cancel(folder: JobFolder, why: str = "") -> Want:
    """Ask for a job to end without its output, also one that has failed; its history stays.

    Args:
        folder: The job.
        why: The reason, for people.

    Returns:
        The wishes for it now.

    Raises:
        JobError: If it has ended, or publishes its output.
        ConfigurationError: If the user may not steer it.
    """
    with _changing(folder) as (view, found):
        want = found.want
        if view.state is not LoggedState.FAILED:
            _refuse_ended(folder, view, "cancel")
        _refuse_cancelled(folder, want, "cancel")
        if view.publishing is not None:  # then it may be there already
            raise JobError(
                f"job {folder.spec.job} cannot be cancelled any more: its output is proven, and is "
                "being published, or was about to be"
            )
        return _write(folder, view, replace(want, wish=Wish.CANCEL), why)


def set_limits(folder: JobFolder, limits: Limits, why: str = "") -> Want:
    """Ask for other limits of a job, which goes on with them at once, and keeps them.

    So does one that has failed: it may have reached a limit.

    Args:
        folder: The job.
        limits: The limits.
        why: The reason, for people.

    Returns:
        The wishes for it now.

    Raises:
        JobError: If it has ended for ever, or is held, somebody has cancelled it, or its wishes
            cannot be read.
        ConfigurationError: If it ends at the first record that fails and rejects were to be
            limited, or the user may not steer it.
    """
    check_reason(why)
    if limits.max_errors is not None and folder.spec.options.get("on_error") != "skip":
        raise ConfigurationError(
            f"job {folder.spec.job} ends at the first record that fails (--on-error raise): "
            "max_errors limits records that are skipped"
        )
    with _changing(folder) as (view, found):
        want = found.want
        if view.state is not LoggedState.FAILED:
            _refuse_ended(folder, view, "change")
        _refuse_cancelled(folder, want, "change")
        if _is_held(view):  # a new wish would have it driven again, or published
            raise JobError(
                f"there is nothing to change: job {folder.spec.job} is held, its output is whole"
            )
        if found.problem:  # it may say that the job is paused, or cancelled
            raise JobError(
                f"the limits of job {folder.spec.job} cannot be changed: "
                f"{unknown_wish(found.problem)}"
            )
        wanted = limits.over(want)
        if want.wish is not Wish.PAUSE:
            return _write(folder, view, wanted, why)
        # Keep who has paused it, and why: a status shows both.
        reason = want.why.partition(_OTHER_LIMITS)[0] or "no reason given"
        others = f"{_OTHER_LIMITS}{this_user()}" + (f": {why}" if why else "")
        why = (reason[: max(0, MOST_REASON - len(others))] + others)[:MOST_REASON]
        return _write(folder, view, wanted, why, who=want.who)


# --- what is refused --------------------------------------------------------------------------


def _refuse_ended(folder: JobFolder, view: JobView, what: str) -> None:
    if view.state.has_ended:
        hint = ""
        if view.state is LoggedState.FAILED:
            hint = f"; `pyrmute-tasks resume {folder.spec.job}` goes on with it"
        raise JobError(
            f"there is nothing to {what}: job {folder.spec.job} has ended: {view.state}{hint}"
        )


def _refuse_cancelled(folder: JobFolder, want: Want, what: str) -> None:
    if want.wish is Wish.CANCEL:
        raise JobError(
            f"there is nothing to {what}: {printable(want.who)} has cancelled job {folder.spec.job}"
        )


def _is_held(view: JobView) -> bool:
    return view.is_held and view.state is LoggedState.STOPPED


def _refuse_going(folder: JobFolder, view: JobView, want: Want) -> None:
    job = folder.spec.job
    if _is_held(view):
        raise JobError(f"job {job} is held: `pyrmute-tasks publish {job}` ends it")
    is_going = want.wish in (Wish.RUN, Wish.PUBLISH) and view.state is not LoggedState.FAILED
    if not is_going or view.suspensions:
        return
    if view.state.is_driven:
        told = f"{Driver.of(view.leased.holder if view.leased is not None else {})} drives it"
    else:
        told = "it waits for a coordinator"
    raise JobError(f"there is nothing to resume: job {job} is not paused, {told}")


def _refuse_lost_code(folder: JobFolder, want: Want, problem: str) -> None:
    if want.lacks_code:
        job, problem = folder.spec.job, problem or f"{WANT} was damaged"
        raise JobError(
            f"job {job} cannot resume: the code that was accepted for it is lost ({problem}); "
            f"accept it again: `pyrmute-tasks resume {job} --manager M --accept-code`"
        )


def _with_code(folder: JobFolder, want: Want, code: Code, *, accept_code: bool) -> Want:
    """Return wishes for today's code, if it is the job's, or is accepted."""
    before = want.fingerprint or folder.spec.fingerprint
    if code.fingerprint == before:
        return replace(want, code=code.tree) if want.lacks_code else want
    if not accept_code:
        known = "" if want.lacks_code else want.code or folder.spec.code
        told = code_differences(known, code.tree)
        raise JobChangedError(
            f"job {folder.spec.job} cannot resume: the code of models or steps has changed "
            f"(fingerprint {before} → {code.fingerprint}). {told}--accept-code goes on with the "
            "new code (accept_code=True in Python)"
        )
    if code.fingerprint == folder.spec.fingerprint:
        return replace(want, fingerprint="", code="")
    return replace(want, fingerprint=code.fingerprint, code=code.tree)


# --- reading and writing ----------------------------------------------------------------------


@contextlib.contextmanager
def _changing(folder: JobFolder) -> Iterator[tuple[JobView, FoundWant]]:
    """Yield a job, and its wishes, to be replaced within the block; others wait meanwhile."""
    with locked(folder.path):
        view = folder.view()
        yield view, read_submitted(folder.storage, Want.of_logged(view.wished))


def _write(folder: JobFolder, view: JobView, want: Want, why: str, who: str = "") -> Want:
    want = want.made_by(who or this_user(), why, view.changed_at)
    write_wish(folder.storage, want)
    return want
