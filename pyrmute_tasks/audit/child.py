"""The child process of an audit, which runs records.

Started by `runs` with its own hash seed; reads one `Request` from stdin and writes one `Answer`
to stdout. The output of the code it runs is discarded, and it ends with its parent.
"""

import contextlib
import mmap
import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import pydantic_core
from pydantic import BaseModel

from pyrmute_tasks.audit.compare import Frozen, freeze, freeze_error
from pyrmute_tasks.audit.ledger import Ledger
from pyrmute_tasks.audit.passes import Reference, Seen, Spot, Tally, Walker, stages_of
from pyrmute_tasks.audit.report import Loss
from pyrmute_tasks.audit.trial import Trial, run_trial
from pyrmute_tasks.errors import ModelNotFoundError
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.pyrmute_adapter import FleetManager, load_manager

__all__ = ["NO_STAGE", "PROGRESS", "Answer", "Request", "main"]

PROGRESS: Final = struct.Struct("<qq")
"""Indexes of the running record and stage."""

NO_STAGE: Final = -1
"""Stands for the stage where a record runs through all of them."""


@dataclass(frozen=True, slots=True)
class Request:
    """The work of a child.

    Attributes:
        manager: The manager's name.
        name: The model's name.
        from_version: Version of the records.
        to_version: Version of the outputs.
        import_path: The parent's ``sys.path``.
        records: The sample's records, pickled.
        positions: Their indexes in the source.
        passes: The orders in which to run them.
        reference: The reference to compare with; None to make it, in a first pass.
        other_seed: Whether the reference comes from a process with another hash seed.
        pause_s: Pause after that pass, so that clocks move on.
        lines: Lines to try out instead of the records, once for time and failures, and for losses.
        places: Where the lines stand, for errors.
    """

    manager: str
    name: str
    from_version: str
    to_version: str
    import_path: tuple[str, ...]
    records: tuple[bytes, ...]
    positions: tuple[int, ...]
    passes: tuple[tuple[int, ...], ...]
    reference: Reference | None = None
    other_seed: bool = False
    pause_s: float = 0.0
    lines: tuple[bytes, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The results of a child.

    Attributes:
        error: Why it could not start; empty if it could.
        differing: For each pass, the spots where outputs differed from the reference.
        reference: The reference, if it was to make it.
        mutated: Likewise, the spots where a stage modified its input.
        losses: Likewise, the lost fields.
        skipped: Runs of a record that were not compared to their end.
        trial: The result of trying out lines, if it was to do that.
    """

    error: str = ""
    differing: list[dict[Spot, Tally]] = field(default_factory=list)
    reference: Reference = field(default_factory=list)
    mutated: dict[Spot, Tally] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()
    skipped: int = 0
    trial: Trial | None = None


def main() -> None:
    """Answer one request, then exit without waiting for threads that steps left running."""
    life, progress = map(int, sys.argv[1:3])
    request: Request = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the parent, over a private pipe
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    sys.path[:] = request.import_path
    try:
        answer = _answer(request, mmap.mmap(progress, PROGRESS.size))
    except Exception as error:  # ours; its message may quote a record
        answer = Answer(error=f"{type(error).__name__} at {_place_of(error)}, a fault of the audit")
    with os.fdopen(answers, "wb") as file:
        pickle.dump(answer, file)
    _end_session()


def _place_of(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def _end_with_parent(life: int) -> None:
    os.read(life, 1)  # never written to: returns when the parent is gone
    _end_session()


def _end_session() -> None:
    # With the processes that steps started: a fork would hold the pipe to the parent.
    os.killpg(0, signal.SIGKILL)


def _answer(request: Request, progress: mmap.mmap) -> Answer:
    def mark(index: int, stage: int) -> None:
        PROGRESS.pack_into(progress, 0, index, stage)

    try:
        manager = load_manager(request.manager)
        plan = manager.plan(request.name, request.from_version, request.to_version)
        if request.lines:
            return _try_out(request, manager, plan, mark)
        walker = Walker(stages_of(plan), request.records, mark)
    except BaseException as error:  # even a module that exits
        return Answer(error=f"{type(error).__name__}: {error}")
    if request.reference is not None:
        differing = [
            walker.again(visits, request.reference, other_seed=request.other_seed)
            for visits in request.passes
        ]
        return Answer(differing=differing, skipped=walker.skipped)
    first = walker.first()
    time.sleep(request.pause_s)
    differing = [walker.again(visits, first.reference) for visits in request.passes]
    losses = _losses(manager, plan, walker, first.seen, request)
    differing.append(first.changed_later)  # by later records: as in another order
    return Answer("", differing, first.reference, first.mutated, losses, walker.skipped)


def _try_out(
    request: Request, manager: FleetManager, plan: MigrationPlan, mark: Callable[[int, int], None]
) -> Answer:
    """Run lines once, and those that hold records once more to find what gets lost."""
    trial = run_trial(plan, request.lines, lambda index: mark(index, NO_STAGE))
    unread = {failed.index for failed in trial.failed if not failed.is_read}
    read, records = [], []
    for index, line in enumerate(request.lines):
        if index not in unread:
            with contextlib.suppress(RecursionError):  # a record that is nested too deeply
                records.append(pickle.dumps(pydantic_core.from_json(line)))
                read.append(index)
    walker = Walker(stages_of(plan), records, lambda index, stage: mark(read[index], stage))
    seen = walker.first().seen
    known = replace(request, positions=tuple(read))
    return Answer(losses=_losses(manager, plan, walker, seen, known), trial=trial)


def _losses(
    manager: FleetManager, plan: MigrationPlan, walker: Walker, seen: list[Seen], request: Request
) -> tuple[Loss, ...]:
    try:
        target = plan.target
    except ModelNotFoundError:
        return ()

    def validate(data: object) -> Frozen:
        try:
            return freeze(plan.validate_one(data, target))  # type: ignore[arg-type]  # as returned by the step
        except BaseException as error:
            return freeze_error(error)

    ledger = Ledger(_source_model(manager, request), target, walker, validate)
    for item in seen:
        ledger.add(item)
    return ledger.losses(request.positions)


def _source_model(manager: FleetManager, request: Request) -> type[BaseModel] | None:
    try:
        return manager.get(request.name, request.from_version)
    except ModelNotFoundError:
        return None
