"""Submitting: what is written, and what is refused, without a broker."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import (
    ConfigurationError,
    ErrorPolicy,
    JobExistsError,
    JobNotFoundError,
    Migrator,
    ModelNotFoundError,
    Retry,
    Settings,
    SubmittedJob,
)
from pyrmute_tasks.jobs.driver import this_process, this_user
from pyrmute_tasks.jobs.entries import Ended, JobResult, Range
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.terms import Priority, Terms
from pyrmute_tasks.jobs.want import Want, read_want
from tests.people import manager

HOP = ("Person", "1.0.0", "3.0.0")
NAME = "tests.people:manager"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source and a jobs root, to which paths are relative."""
    (tmp_path / "jobs").mkdir()
    lines = [json.dumps({"name": f"Ann {n}", "age": n}) + "\n" for n in range(10)]
    (tmp_path / "in.jsonl").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def migrator(here: Path) -> Migrator:
    """A migrator of a fleet that does not exist."""
    url = "redis://127.0.0.1:1/0"
    return Migrator(NAME, settings=Settings(broker_url=url, jobs_root="jobs", queue="backfills"))


def found(job: SubmittedJob) -> JobFolder:
    return JobFolder(job.path)


def want_of(job: SubmittedJob) -> Want:
    return read_want(found(job).storage, Want()).want


def test_spec_has_absolute_paths_the_plan_and_the_whole_tree(
    migrator: Migrator, here: Path
) -> None:
    job = migrator.submit("in.jsonl", "out.jsonl", *HOP)
    plan, spec = manager.plan(*HOP), found(job).spec
    assert job.path == here / "jobs" / job.id
    assert (spec.sources[0].path, spec.target) == (str(here / "in.jsonl"), str(here / "out.jsonl"))
    assert (spec.plan, spec.fingerprint) == (HOP, plan.fingerprint)
    assert json.loads(spec.code) == plan.fingerprint_tree.to_dict()
    assert spec.created_by == this_user() == f"{this_process()['who']}@{this_process()['host']}"
    assert spec.terms == Terms(manager=NAME, queue="backfills", overwrite=True)
    want = want_of(job)
    assert want == Want(who=spec.created_by, at=spec.created_at)


def test_every_option_is_in_the_spec_its_terms_or_the_first_wishes(
    migrator: Migrator, here: Path
) -> None:
    first = migrator.submit("in.jsonl", "first.jsonl", *HOP, name="first")
    retry = Retry(on=[ConnectionError], attempts=7)
    job = Migrator(NAME, settings=Settings(queue="q"), retry=retry).submit(
        "in.jsonl",
        "out.jsonl",
        *HOP,
        jobs=here / "jobs",
        name="nightly: users",
        priority="high",
        after="first",
        on_end="mail -s done ann",
        give_up_s=60,
        why="release 3",
        chunk_size=3,
        limit=4,
        overwrite=False,
        hold=True,
        backup=True,
        by_reference="never",
        max_line_bytes=1000,
        on_error=ErrorPolicy.skip("0.1%", max_crashes=2),
        max_rate=50,
        window=5,
    )
    spec = found(job).spec
    assert spec.terms == Terms(
        manager=NAME,
        name="nightly: users",
        queue="q",
        priority=Priority.HIGH,
        after=first.id,
        by_reference="never",
        chunk_size=3,
        overwrite=False,
        backup=True,
        hold=True,
        retry=retry.to_wire(),
        on_end="mail -s done ann",
        give_up_s=60.0,
        why="release 3",
    )
    length = sum(map(len, (here / "in.jsonl").read_bytes().splitlines(keepends=True)[:4]))
    assert spec.only == (Range(0, 0, length),)
    assert spec.options == {
        "on_error": "skip",
        "max_errors": "0.1%",
        "max_crashes": 2,
        "rejects": None,
        "rejects_with_records": False,
        "max_line_bytes": 1000,
        "limit": 4,
    }
    want = want_of(job)
    assert (want.max_rate, want.window, want.why) == (50.0, 5, "release 3")


def test_several_files_and_parts_are_submitted(migrator: Migrator, here: Path) -> None:
    (here / "more").mkdir()
    for name in ("b.jsonl", "a.jsonl"):
        (here / "more" / name).write_bytes((here / "in.jsonl").read_bytes())
    spec = found(migrator.submit("more", "parts/", *HOP)).spec
    assert [Path(each.path).name for each in spec.sources] == ["a.jsonl", "b.jsonl"]
    assert spec.is_parts


Refused = Callable[[Migrator, Path], object]


def other_format(migrator: Migrator, here: Path) -> object:
    (here / "array.jsonl").write_text('[{"name": "Ann"}]')
    return migrator.submit("array.jsonl", "out.jsonl", *HOP)


def into_a_pipe(migrator: Migrator, here: Path) -> object:
    os.mkfifo(here / "pipe")
    return migrator.submit("in.jsonl", "pipe", *HOP)


def from_a_pipe(migrator: Migrator, here: Path) -> object:
    os.mkfifo(here / "pipe")
    return migrator.submit("pipe", "out.jsonl", *HOP)


def from_an_open_file(migrator: Migrator, here: Path) -> object:
    with open("in.jsonl", "rb") as file:
        return migrator.submit(file, "out.jsonl", *HOP)  # type: ignore[arg-type]  # refused


def over_a_file(migrator: Migrator, here: Path) -> object:
    (here / "out.jsonl").write_text("{}")
    return migrator.submit("in.jsonl", "out.jsonl", *HOP, overwrite=False)


def called(*files: str, **options: Any) -> Refused:
    names = files or ("in.jsonl", "out.jsonl")
    return lambda migrator, _: migrator.submit(names[0], names[1], *HOP, **options)


CANNOT: list[tuple[Refused, str]] = [
    (called("no.jsonl", "out.jsonl"), "cannot read no.jsonl"),
    (called("in.jsonl", "in.jsonl"), "the same file"),
    (called("in.jsonl", "nowhere/out.jsonl"), "cannot write nowhere/out.jsonl"),
    (called("in.jsonl", "/dev/stdout"), "belongs to its process"),
    (into_a_pipe, "belongs to its process"),
    (from_an_open_file, "belongs to its process"),
    (from_a_pipe, "it is a pipe or a device"),
    (other_format, r"jq -c '.\[\]' array.jsonl > LINES.jsonl"),
    (over_a_file, "it exists; add --overwrite"),
    (called("in.jsonl", "parts/", limit=3), "a limit counts records"),
    (called(by_reference="always", chunk_size=3), "a chunk size counts records"),
    (called(priority="urgent"), "priority must be low, normal, high, not 'urgent'"),
    (called(name="../x"), r"cannot be named '\.\./x'"),
    (called(name="a\nb"), "cannot be named"),
    (called(give_up_s=0), "give_up_s must be a positive number"),
    (called(window=0), "window must be 1 chunk or more"),
    (called(max_rate=-1), "max_rate must be a positive number"),
    (called(name=5), "name cannot be 5"),
    (called(after=5), "after cannot be 5"),
    (called(on_end=["mail"]), r"on_end cannot be \['mail'\]"),
    (called(on_end="a\0b"), r"on_end cannot be 'a\\x00b'"),
    (called(give_up_s="1"), "give_up_s cannot be '1'"),
    (called(give_up_s=1e13), "give_up_s cannot be 1"),
    (called(window=1.5), "window cannot be 1.5"),
    (called(window=10**13), "window is not between 0 and 1e"),
    (called(max_rate=1e13), "max_rate is not between 0 and 1e"),
    (called(why=5), "why cannot be 5"),
    (called(why="\ud800"), r"why cannot be '\\ud800'"),
    (called(why="x" * 4001), "why must have 4,000 characters at most, not 4,001"),
    (called(hold="yes"), "hold cannot be 'yes'"),
    (called(overwrite=None), "overwrite cannot be None"),
    (called(backup=1), "backup cannot be 1"),
    (called(chunk_size=2**64), "chunk_size cannot be 18446744073709551616"),
    (called(limit=2**64), "limit cannot be 18446744073709551616"),
    (called(max_line_bytes=2**64), "max_line_bytes cannot be 18446744073709551616"),
    (called(jobs="nowhere"), "there is no jobs root .*nowhere"),
]


@pytest.mark.parametrize(("call", "told"), CANNOT, ids=[told for _, told in CANNOT])
def test_what_could_not_be_run_is_refused_and_leaves_nothing(
    migrator: Migrator, here: Path, call: Refused, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        call(migrator, here)
    assert list((here / "jobs").iterdir()) == []


def test_jobs_root_model_and_job_before_must_exist(migrator: Migrator, here: Path) -> None:
    with pytest.raises(ConfigurationError, match="which jobs root"):
        Migrator(NAME, settings=Settings()).submit("in.jsonl", "out.jsonl", *HOP)
    with pytest.raises(ModelNotFoundError):
        migrator.submit("in.jsonl", "out.jsonl", "Nobody", "1.0.0", "2.0.0")
    with pytest.raises(JobNotFoundError):
        migrator.submit("in.jsonl", "out.jsonl", *HOP, after="nightly")


def test_one_job_at_a_time_writes_a_target(migrator: Migrator, here: Path) -> None:
    first = migrator.submit("in.jsonl", "out.jsonl", *HOP)
    (here / "link").symlink_to(here)
    with pytest.raises(JobExistsError, match=rf"job {first.id} of .*, which has not ended, writes"):
        migrator.submit("in.jsonl", "link/out.jsonl", *HOP)
    lease = found(first).take(this_process(), "f00d")
    lease.log.log(Ended(JobResult.CANCELLED, 0, 0, 0))
    lease.let_go("it ended")
    second = migrator.submit("in.jsonl", "out.jsonl", *HOP)
    assert {job.id for job in migrator.jobs()} == {first.id, second.id}


def test_target_of_a_run_that_can_be_resumed_is_refused(migrator: Migrator, here: Path) -> None:
    spec = found(migrator.submit("in.jsonl", "other.jsonl", *HOP)).spec
    JobFolder.create(beside(here / "out.jsonl"), spec)
    with pytest.raises(JobExistsError, match=r"an earlier run to .*out.jsonl has left its log in"):
        migrator.submit("in.jsonl", "out.jsonl", *HOP)


def test_jobs_are_found_again(migrator: Migrator, here: Path) -> None:
    job = migrator.submit("in.jsonl", "out.jsonl", *HOP, name="nightly")
    for wanted in (job.id, job.id[:6], "nightly"):
        assert migrator.job(wanted).id == job.id
    assert Migrator(NAME, settings=Settings()).job("nightly", jobs="jobs").path == job.path
    for wanted in ("", "weekly", job.id[:2]):
        with pytest.raises(JobNotFoundError):
            migrator.job(wanted)
