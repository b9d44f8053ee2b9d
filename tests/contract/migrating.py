"""What local executors run; children import this module and little else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.wire.frames import pack_record
from tests.people import manager

__all__ = ["HOP", "PLAN", "begin_here", "run_here"]

HOP: Final = ("Person", "1.0.0", "3.0.0")
PLAN: Final = manager.plan(*HOP)


def run_here(chunk: Chunk[list[Any]]) -> Outcome[list[Any]]:
    outputs, failure = PLAN.migrate(chunk.payload, chunk.start)
    return Outcome(chunk.index, len(outputs), outputs, (failure,) if failure else ())


def run_and_pack(chunk: Chunk[list[Any]]) -> Outcome[list[bytes]]:
    outcome = run_here(chunk)
    return replace(outcome, outputs=list(map(pack_record, outcome.outputs)))


def begin_here(_: object) -> Callable[[Chunk[list[Any]]], Outcome[list[bytes]]]:
    return run_and_pack
