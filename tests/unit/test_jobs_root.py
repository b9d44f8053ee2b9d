"""The jobs root, and the documents of submitted jobs."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pyrmute_tasks.errors import ConfigurationError, JobExistsError, JobLogError, JobNotFoundError
from pyrmute_tasks.jobs.entries import Note, Noted, Settled
from pyrmute_tasks.jobs.now import NOW, Now, read_now, remove_now, write_now
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SPEC, SourceFile, Spec, read_spec
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.terms import Priority, Terms
from pyrmute_tasks.jobs.want import Want, read_want


def spec_of(tmp_path: Path, job: str = "a1b2c3d4", name: str = "", created_at: float = 0) -> Spec:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"0123456789")
    plan = ("User", "1.0.0", "2.0.0")
    terms = Terms(name=name, priority=Priority.HIGH, retry=[["builtins:OSError"], 4, 0.1, 1.0])
    return Spec(
        job,
        (SourceFile.of(source),),
        str(tmp_path / "out.jsonl"),
        plan,
        "f00d",
        terms=terms,
        created_at=created_at,
    )


@pytest.fixture
def root(tmp_path: Path) -> JobsRoot:
    path = tmp_path / "jobs"
    path.mkdir()
    path.chmod(0o2770)
    return JobsRoot(path)


def test_created_job_has_its_terms_its_wishes_and_the_modes_of_the_root(
    root: JobsRoot, tmp_path: Path
) -> None:
    spec, want = spec_of(tmp_path), Want(max_rate=5.0, who="ann@host")
    folder = root.create(spec, want)
    assert folder.spec == spec
    assert read_want(folder.storage, Want()).want == want
    assert folder.path.stat().st_mode & 0o7777 == 0o2770
    assert folder.parts_path.stat().st_mode & 0o7777 == 0o2770, "all of the group may tidy up"
    with pytest.raises(JobExistsError):
        root.create(spec, want)


def test_jobs_are_found_by_id_beginning_and_name(root: JobsRoot, tmp_path: Path) -> None:
    for job, name, at in (("aaaa1111", "nightly", 1.0), ("aaaa2222", "nightly", 2.0)):
        root.create(spec_of(tmp_path, job, name, at), Want())
    assert root.find("aaaa1111").spec.job == "aaaa1111"
    assert root.find("aaaa2").spec.job == "aaaa2222"
    assert root.find("nightly").spec.job == "aaaa2222"
    assert [job.spec.job for job in root.jobs()] == ["aaaa1111", "aaaa2222"]
    for wanted, told in (
        ("aaaa", "2 jobs in .* have an id that begins with 'aaaa': give more of it"),
        ("bbbb", "none"),
        ("../jobs", "none"),
        ("", "no job '' in .*: none"),
    ):
        with pytest.raises(JobNotFoundError, match=told):
            root.find(wanted)


def test_beginning_of_an_id_has_four_characters(root: JobsRoot, tmp_path: Path) -> None:
    root.create(spec_of(tmp_path, "aaaa1111", "nightly", 1.0), Want())
    with pytest.raises(JobNotFoundError, match="of an id at least 4 characters are needed"):
        root.find("aaa")
    with pytest.raises(ConfigurationError, match="by its id or name, not by 3"):
        root.find(3)  # type: ignore[arg-type]  # what a type checker would refuse, too


def test_root_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no jobs root"):
        JobsRoot(tmp_path / "missing")


def test_spec_of_the_first_format_has_no_terms(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path), terms=None)
    fields = {"format": 1, **asdict(spec)}
    del fields["terms"]
    (tmp_path / SPEC).write_text(json.dumps(fields))
    assert read_spec(FolderStorage(tmp_path)) == spec
    fields["terms"] = {"priority": "urgent"}
    (tmp_path / SPEC).write_text(json.dumps(fields))
    with pytest.raises(JobLogError, match="damaged"):
        read_spec(FolderStorage(tmp_path))


def test_now_round_trips_and_is_none_when_it_cannot_be_read(tmp_path: Path) -> None:
    now = Now(epoch=3, at=12.5, records=7, waits="no worker answers", causes={"step": 2})
    assert read_now(tmp_path) is None
    write_now(tmp_path, now)
    assert read_now(tmp_path) == now
    for torn in (b"", b'{"epoch":3,', b"[]", b'{"epoch":3,"at":1,"colour":"red"}'):
        (tmp_path / NOW).write_bytes(torn)
        assert read_now(tmp_path) is None
    remove_now(tmp_path)
    assert not list(tmp_path.iterdir())


def test_suspensions_count_until_a_range_is_settled(root: JobsRoot, tmp_path: Path) -> None:
    folder = root.create(spec_of(tmp_path), Want())
    for _ in range(2):
        folder.take({"host": "h"}, "f00d").let_go("no worker", Note.SUSPENDED)
    view = folder.view()
    assert (view.state, view.suspensions, view.stopped) == ("stopped", 2, "no worker")
    since = view.suspended_since
    assert 0 < since <= view.changed_at
    lease = folder.take({"host": "h"}, "f00d")
    lease.log.log(Noted(Note.WAIT, "slow"))
    lease.log.settle(Settled(0, 0, 4, 1, 0, 1))
    lease.let_go("paused")
    view = folder.view()
    assert (view.suspensions, view.suspended_since) == (0, 0.0)
