"""Publishing and discarding submitted jobs: who did it, where, when and why is kept."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyrmute_tasks import JobNotFoundError, Migrator, ProofError, Settings
from pyrmute_tasks.async_job_calls import AsyncSubmittedJob
from pyrmute_tasks.cli.job_report import report_command
from pyrmute_tasks.cli.job_status import status_command
from pyrmute_tasks.cli.jobs import discard_command, publish_command
from pyrmute_tasks.errors import JobError
from pyrmute_tasks.io.kept_jobs import publish_job
from pyrmute_tasks.jobs import lease as leases
from pyrmute_tasks.jobs.driver import this_user
from pyrmute_tasks.jobs.entries import Note, Settled, Wished
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.output import Output, digest_of
from pyrmute_tasks.jobs.pruning import KEEP_HISTORY_S, prune
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.want import Want
from pyrmute_tasks.service import steering
from pyrmute_tasks.service.epoch_options import holds_output
from pyrmute_tasks.service.turns import Act, FleetFacts, decide
from pyrmute_tasks.service.watched_jobs import WatchedJobs
from tests.unit.watched_jobs import SOURCE_BYTES, WatchedJob

WHOLE = b"output\n" * 10
JOB = "a1b2c3d4"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRMUTE_TASKS_JOBS_ROOT", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


def held(root: Path, job: str = JOB, **terms: object) -> WatchedJob:
    """Leave a submitted job whose output is whole, and held."""
    made = WatchedJob.submitted(root, job, hold=True, **terms).taken()
    assert made.lease is not None
    put = made.lease.log.put(WHOLE)
    made.lease.log.settle(Settled(0, 0, SOURCE_BYTES, 10, 10, put=put, digest=digest_of(WHOLE)))
    return made.let_go("its output is whole, and held", Note.HELD)


def wishes_of(folder: JobFolder) -> list[Want]:
    entries = [logged.entry for logged in History(folder.storage)]
    return [Want.of(each.want) for each in entries if isinstance(each, Wished)]


def call(command: object, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]  # any command
    return done.exit_code, done.output


def test_published_job_tells_who_published_it_and_why(root: Path) -> None:
    job = held(root, name="flights")
    before = time.time()
    status, told = call(publish_command, "flights", "--why", "release 3")
    assert (status, told.startswith("published ")) == (0, True)
    assert Path(job.folder.spec.target).read_bytes() == WHOLE
    (wish,) = wishes_of(job.folder)
    assert (wish.wish, wish.who, wish.why) == (Wish.PUBLISH, this_user(), "release 3")
    assert before <= wish.at <= time.time() + 5
    told = call(report_command, "flights")[1]
    assert "publish" in told
    assert f"{this_user()}: release 3" in told
    assert not (job.folder.path / "parts").exists()


def test_publishing_that_was_killed_is_gone_on_with_by_a_coordinator(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = held(root)

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(Output, "prove", killed)
    monkeypatch.setattr(leases.Lease, "let_go", lambda *_: None)  # it could not
    with pytest.raises(SystemExit):
        publish_job(job.folder.path, why="release 3")
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    watched = jobs.open[JOB]
    watched.driven = ""  # its process is gone
    assert decide(watched.facts(0.0, None), FleetFacts(""), job.clock + 1).act is Act.DRIVE
    assert not holds_output(watched.terms, watched.want)
    assert watched.want.why == "release 3"


def test_publishing_that_failed_leaves_the_job_held_and_no_coordinator_tries_it(root: Path) -> None:
    job = held(root)
    (job.folder.path / "stream.1").write_bytes(b"short")
    with pytest.raises(ProofError):
        publish_job(job.folder.path)
    jobs = WatchedJobs(root)
    jobs.look(but=frozenset())
    facts = jobs.open[JOB].facts(0.0, None)
    assert facts.view.is_held
    assert decide(facts, FleetFacts(""), job.clock + 100).act is Act.WAIT


@pytest.mark.parametrize("steer", [steering.cancel, steering.pause])
def test_wish_that_was_accepted_while_the_output_was_proven_is_obeyed(
    root: Path, monkeypatch: pytest.MonkeyPatch, steer: Callable[[JobFolder, str], Want]
) -> None:
    job, prove = held(root), Output.prove

    def steered(output: Output) -> object:
        steer(JobFolder(job.folder.path), "wrong file")
        return prove(output)

    monkeypatch.setattr(Output, "prove", steered)
    with pytest.raises(JobError, match=f"{this_user()} has (cancelled|paused) job {JOB}"):
        publish_job(job.folder.path)
    assert job.folder.view().is_held
    assert not Path(job.folder.spec.target).exists()


def test_process_that_publishes_shows_that_it_lives(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator of another host takes a job over whose log was not touched for 20 s."""
    job, touched, prove = held(root), threading.Event(), Output.prove
    monkeypatch.setattr(leases, "BEAT_EVERY_S", 0.01)
    touch = type(job.folder.storage).touch

    def noted(storage: object, name: str) -> None:
        touch(storage, name)  # type: ignore[arg-type]  # a method
        touched.set()

    def proven(output: Output) -> object:
        assert touched.wait(30)
        return prove(output)

    monkeypatch.setattr(type(job.folder.storage), "touch", noted)
    monkeypatch.setattr(Output, "prove", proven)
    assert publish_job(job.folder.path).is_published


def test_run_of_the_foreground_tells_it_too(tmp_path: Path) -> None:
    job = WatchedJob.beside(tmp_path / "out").taken()
    assert job.lease is not None
    bad = job.lease.log.put_rejects(b"rejects")
    put = job.lease.log.put(WHOLE)
    entry = Settled(0, 0, SOURCE_BYTES, 11, 10, 1, put=put, digest=digest_of(WHOLE), rejects=bad)
    job.lease.log.settle(entry)
    job.let_go("held", Note.HELD)
    assert publish_job(tmp_path / "out", why="looked at").is_published
    (wish,) = wishes_of(job.folder)
    assert (wish.wish, wish.why) == (Wish.PUBLISH, "looked at")
    assert not (job.folder.path / "want.json").exists()


def test_discarded_job_leaves_who_discarded_it_and_why_and_nothing_else(root: Path) -> None:
    held(root, name="flights")
    status, told = call(discard_command, "flights", "--why", "the wrong file")
    assert (status, told) == (0, f"discarded {root / JOB}\n")
    assert os.listdir(root) == [f".{JOB}.discarded"]
    for command in (report_command, status_command, publish_command, discard_command):
        for name in ("flights", JOB, JOB[:5]):
            status, told = call(command, name)
            assert status == 1
            assert f"job {JOB} was discarded by {this_user()} at 20" in told
            assert told.endswith("when it was held: the wrong file\n")


def test_note_of_a_discarded_job_goes_after_30_days(root: Path) -> None:
    held(root)
    call(discard_command, JOB)
    prune(root, now=time.time() + KEEP_HISTORY_S - 60)
    assert os.listdir(root) == [f".{JOB}.discarded"]
    prune(root, now=time.time() + KEEP_HISTORY_S + 60)
    assert os.listdir(root) == []


def test_damaged_job_and_damaged_notes(root: Path) -> None:
    job = held(root)
    (job.folder.path / "spec.json").write_text("{")
    assert call(discard_command, JOB)[0] == 0
    assert "when it was damaged" in call(report_command, JOB)[1]
    note = root / f".{JOB}.discarded"
    found = json.loads(note.read_text())
    for damage in ({"at": 1e99}, {"at": "x"}, {"who": 3}, {"more": 1}):
        note.write_text(json.dumps({**found, **damage}))
        status, told = call(report_command, JOB)
        assert (status, "none has this id or name" in told) == (1, True)


def test_job_is_published_and_discarded_from_python(root: Path) -> None:
    held(root, name="flights")
    migrator = Migrator("tests.people:manager", settings=Settings(jobs_root=str(root)))
    job = migrator.job("flights")
    assert job.publish(why="release 3").proof.outputs == 10
    assert job.report().wishes[-1].want["why"] == "release 3"
    job.discard("no longer needed")
    for gone in (job.discard, job.publish, job.progress, job.report, job.pause, job.wait):
        with pytest.raises(JobNotFoundError, match=f"job {JOB} was discarded by {this_user()} at"):
            gone()
    with pytest.raises(JobNotFoundError, match="no longer needed"):
        migrator.job("flights")


def test_job_is_published_and_discarded_in_an_event_loop(root: Path) -> None:
    held(root, name="flights")
    migrator = Migrator("tests.people:manager", settings=Settings(jobs_root=str(root)))
    job = AsyncSubmittedJob(migrator.job("flights"))

    async def both() -> None:
        assert (await job.publish(why="release 3")).is_published
        await job.discard("no longer needed")

    asyncio.run(both())
    assert not job.path.exists()
