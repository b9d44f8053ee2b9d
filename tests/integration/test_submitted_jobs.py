"""Submitted jobs from the command that submits them to the loop's bytes, steered meanwhile."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyrmute_tasks import AsyncMigrator, JobFailedError, Migrator, ModelData, SubmittedJob
from pyrmute_tasks.cli.jobs import discard_command, publish_command, verify_command
from pyrmute_tasks.cli.retry import retry_command
from pyrmute_tasks.cli.steer import cancel_command, pause_command, resume_command, set_command
from pyrmute_tasks.cli.submit import submit as submit_command
from pyrmute_tasks.jobs.driver import this_user
from pyrmute_tasks.jobs.states import ShownState
from tests.conftest import wait_until
from tests.fleets import Fleet, private_fleet
from tests.people import broken_step, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
NAME = "tests.people:manager"
LONG_S = 60.0
SLOW = 500.0  # records a second, for jobs that are to be seen running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def fleet(root: Path) -> Iterator[Fleet]:
    """A fleet with a coordinator."""
    with private_fleet(NAME, secret="s" * 32, roots=str(root.parent)) as fleet:
        fleet.start_worker()
        fleet.settings = replace(fleet.settings, jobs_root=str(root))
        coordinator = [sys.executable, "-m", "pyrmute_tasks", "coordinator"]
        process = fleet.start_process("coordinator", coordinator)
        yield fleet
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def migrator(fleet: Fleet) -> Iterator[Migrator]:
    with Migrator(manager, settings=fleet.settings) as migrator:
        yield migrator


@pytest.fixture
def call(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> "Call":
    """Call a command with the fleet's settings; return what it prints."""
    for name, value in fleet.settings.to_env().items():
        monkeypatch.setenv(name, value)

    def call_it(command: object, *arguments: object, status: int = 0) -> str:
        done = CliRunner().invoke(command, [str(each) for each in arguments])  # type: ignore[arg-type]
        assert done.exit_code == status, done.output
        return done.output.strip()

    return call_it


Call = Callable[..., str]


def write(path: Path, records: list[ModelData]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def looped(records: list[ModelData]) -> str:
    good = [each for each in records if each["age"] >= 0]
    return "".join(f"{manager.migrate(each, *HOP).model_dump_json()}\n" for each in good)


def until(job: SubmittedJob, *states: ShownState) -> None:
    wait_until(lambda: job.progress().state in states, f"it is {states[0]}", LONG_S)


def started(job: SubmittedJob) -> None:
    wait_until(lambda: job.progress().records > 0, "it has begun", LONG_S)


def wishes(job: SubmittedJob) -> list[tuple[object, ...]]:
    told = [each.want for each in job.report().wishes]
    return [(each["wish"], each["why"], each["who"], each["max_rate"]) for each in told]


def test_job_is_submitted_by_command_and_driven_to_the_loops_bytes(
    call: Call, migrator: Migrator, tmp_path: Path
) -> None:
    records = [person(number) for number in range(3000)]
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    hop = ("--manager", NAME, "--model", "Person", "--from", "1.0.0", "--to", "3.0.0")
    told = json.loads(call(submit_command, *hop, "--name", "people", "--json", source, target))
    job = migrator.job("people")
    assert (job.id, str(job.path)) == (told["id"], told["folder"])
    done = job.wait(LONG_S)
    assert (done.state, done.outputs) == (ShownState.SUCCEEDED, 3000)
    assert target.read_text() == looped(records)
    call(discard_command, job.id)
    assert not job.path.exists()
    assert target.read_text() == looped(records)


def test_job_is_paused_changed_resumed_and_says_who_did_it_and_why(
    call: Call, migrator: Migrator, tmp_path: Path
) -> None:
    records = [person(number) for number in range(2500)]
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    job = migrator.submit(source, target, *HOP, max_rate=SLOW, why="release 3")
    started(job)
    assert "drives this job" in call(discard_command, job.id, status=1)
    call(pause_command, job.id[:8], "--why", "lunch")
    until(job, ShownState.PAUSED)
    assert job.progress().reason == f"paused by {this_user()}: lunch"
    assert "is not paused" not in call(resume_command, job.id, "--why", "back")
    wait_until(lambda: len(wishes(job)) == 3, "it goes on", LONG_S)
    call(set_command, job.id, "--max-rate", "none", "--why", "quick")
    job.wait(LONG_S)
    assert target.read_text() == looped(records)
    me = this_user()
    assert wishes(job) == [
        ("run", "release 3", me, SLOW),
        ("pause", "lunch", me, SLOW),
        ("run", "back", me, SLOW),
        ("run", "quick", me, 0.0),
    ]
    for command in (pause_command, resume_command, cancel_command):
        assert "has ended: succeeded" in call(command, job.id, status=1)


def test_only_the_history_of_a_cancelled_job_is_kept(
    call: Call, migrator: Migrator, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [person(number) for number in range(5000)])
    job = migrator.submit(source, tmp_path / "out.jsonl", *HOP, max_rate=SLOW)
    started(job)
    call(cancel_command, job.id, "--why", "wrong file")
    with pytest.raises(JobFailedError, match=f"cancelled by {this_user()}: wrong file"):
        job.wait(LONG_S)
    wait_until(lambda: not (job.path / "parts").exists(), "its attempts are gone")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.jsonl"]
    assert "has nothing to publish: it is cancelled" in call(publish_command, job.id, status=1)


def test_held_job_is_verified_and_published_by_its_id(
    call: Call, migrator: Migrator, tmp_path: Path
) -> None:
    records = [person(number) for number in range(300)]
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    job = migrator.submit(source, target, *HOP, hold=True, name="held")
    job.wait(LONG_S)
    assert not target.exists()
    assert "can be published" in call(verify_command, "held")
    assert f"published {target}" in call(publish_command, "held")
    assert target.read_text() == looped(records)
    assert job.wait(0).state is ShownState.SUCCEEDED
    assert "is whole" in call(verify_command, job.id)
    assert "is published already" in call(publish_command, job.id, status=1)


def test_rejects_are_retried_by_a_job_of_its_own(
    call: Call, migrator: Migrator, tmp_path: Path
) -> None:
    records = [person(number) for number in range(400)]
    records[7] = broken_step(7)
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    job = migrator.submit(source, target, *HOP, on_error="skip")
    assert job.wait(LONG_S).state is ShownState.SUCCEEDED_WITH_REJECTS
    assert [each.index for each in job.rejects()] == [7]
    assert target.read_text() == looped(records)
    again = migrator.job(call(retry_command, job.id, "--manager", NAME))
    done = again.wait(LONG_S)  # the step is as it was: it fails again
    assert (done.state, done.rejected) == (ShownState.SUCCEEDED_WITH_REJECTS, 1)
    assert target.read_text() == looped(records)
    assert again.report().parents == (job.id,)
    told = call(retry_command, job.id, "--manager", NAME, status=1)
    assert f"job {again.id} has retried the rejects of job {job.id}" in told


def test_waiting_from_an_event_loop(fleet: Fleet, tmp_path: Path) -> None:
    records = [person(number) for number in range(300)]
    records[5] = broken_step(5)
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"

    async def submit_and_wait() -> list[int]:
        async with AsyncMigrator(Migrator(manager, settings=fleet.settings)) as migrator:
            failing = await migrator.submit(source, tmp_path / "other.jsonl", *HOP)
            job = await migrator.submit(source, target, *HOP, on_error="skip", name="async")
            assert (await job.wait(LONG_S)).outputs == 299
            with pytest.raises(JobFailedError, match="LookupError"):
                await failing.wait(LONG_S)
            found = await migrator.job("async")
            assert job.id in [each.id for each in await migrator.jobs()]
            return [each.index async for each in found.rejects()]

    assert asyncio.run(submit_and_wait()) == [5]
    assert target.read_text() == looped(records)
