"""Harms to the storage of a job by reference: gone, full, read-only, slow, another one."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from pyrmute_tasks.jobs.folder import PARTS, beside
from tests.chaos.runs import Run
from tests.chaos.slow_storage import SLOW
from tests.fleets import mounts
from tests.fleets.worker import Worker

__all__ = [
    "MANAGER",
    "SIZE_BYTES",
    "fill",
    "hide_attempts",
    "hide_job",
    "hide_source",
    "lose_on_one_worker",
    "make_read_only",
    "move_away",
    "slow_down",
    "start_elsewhere",
]

MANAGER: Final = "tests.chaos.slow_storage:manager"
SIZE_BYTES: Final = 96 * 1024 * 1024
"""Size of the file system, if it is one of its own."""

_DECLINES: Final = "this worker cannot run a range by reference"


def hide_attempts(run: Run) -> None:
    _hide(run, beside(run.target) / PARTS)


def hide_job(run: Run) -> None:
    _hide(run, beside(run.target))


def hide_source(run: Run) -> None:
    _hide(run, run.feed.path)


def move_away(run: Run) -> None:
    """Unmount source, job and target."""
    _in_the_middle(run)
    with run.outage(), mounts.moved_away(run.target.parent):
        _pause(run)
    run.wait_for_deliveries(5)


def fill(run: Run) -> None:
    _in_the_middle(run)
    with run.outage(), mounts.filled(run.target.parent):
        _pause(run)
    run.wait_for_deliveries(5)


def make_read_only(run: Run) -> None:
    _in_the_middle(run)
    with run.outage(), mounts.read_only(run.target.parent):
        _pause(run)
    run.wait_for_deliveries(5)


def slow_down(run: Run) -> None:
    """Let every sync of the workers take two seconds."""
    _in_the_middle(run)
    flag = run.fleet.directory / SLOW
    run.begin_fault()
    flag.touch()
    try:
        run.pause(run.spell_s)
    finally:
        flag.unlink()
    run.wait_for_deliveries(5)


def start_elsewhere(run: Run) -> None:
    """Start a worker whose root is another folder, again if a deployment replaces it too early."""
    _in_the_middle(run)
    elsewhere = run.fleet.directory / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    settings = replace(run.fleet.settings, roots=str(elsewhere))
    run.begin_fault()
    while not _declines(run, run.fleet.start_worker(settings=settings)):
        pass
    run.wait_for_deliveries(10)


def lose_on_one_worker(run: Run) -> None:
    """Mount another file system over the job's, on one worker, when it has run some ranges."""
    _in_the_middle(run)
    data = run.target.parent
    with mounts.own_mounts():
        worker = run.fleet.start_worker()
        run.wait_until(lambda: worker.full_name in run.settled_by, "it has run a range")
        run.begin_fault()
        with mounts.with_tmpfs(data, 1024 * 1024):
            assert _declines(run, worker), worker.log[-3000:]
            run.wait_for_deliveries(10)
        run.wait_for_deliveries(10)


def _hide(run: Run, path: Path) -> None:
    _in_the_middle(run)
    away = path.with_name("away")
    with run.outage():
        path.rename(away)
        try:
            _pause(run)
        finally:
            away.rename(path)
    run.wait_for_deliveries(5)


def _declines(run: Run, worker: Worker) -> bool:
    """Wait until a worker has declined a range; return whether it was left long enough to."""
    run.wait_until(
        lambda: _DECLINES in worker.log or not worker.is_wanted, "the worker declines a range"
    )
    return _DECLINES in worker.log


def _pause(run: Run) -> None:
    run.pause(run.gone_s)


def _in_the_middle(run: Run) -> None:
    if not run.is_mixed:
        run.wait_for_deliveries(3)
        run.pause(run.random.uniform(0, 0.2))
