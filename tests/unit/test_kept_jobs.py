"""Jobs that are left beside their targets: published later, verified, discarded."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyrmute_tasks.cli.jobs import discard_command, publish_command, verify_command
from pyrmute_tasks.errors import (
    ConfigurationError,
    JobError,
    JobNotFoundError,
    OutputInUseError,
    ProofError,
)
from pyrmute_tasks.file_options import FileOptions
from pyrmute_tasks.io.earlier_runs import LogOptions
from pyrmute_tasks.io.kept_jobs import ProvenJob, discard_job, publish_job, verify_job
from pyrmute_tasks.io.output_lock import OutputLock
from pyrmute_tasks.jobs.entries import Note, Piece, Range, Settled
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.output import digest_of
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from tests.unit.watched_jobs import WatchedJob

WHOLE = b"".join(b"line %d\n" % at for at in range(10))


def held(target: Path, *, is_parts: bool = False, rejected: int = 0, end: int = 10) -> JobFolder:
    """Leave a job of ten records in two ranges, proven and held."""
    source = SourceFile("/in.jsonl", end, "1", "")
    hop = ("User", "1.0.0", "2.0.0")
    spec = Spec("job", (source,), str(target), hop, "f00d", is_parts=is_parts)
    folder = JobFolder.create(beside(target), spec)
    lease = folder.take({"host": "h"}, "f00d")
    for number, range_ in enumerate([Range(0, 6, 10), Range(0, 0, 6)]):
        name = f"parts/{number}"
        data = b"".join(b"line %d\n" % at for at in range(*range_[1:]))
        (folder.path / name).write_bytes(data)
        count = range_.end - range_.start
        put = Piece(name, 0, len(data))
        bad = lease.log.put_rejects(b"rejects") if rejected and not range_.start else None
        fails = rejected if bad else 0
        entry = Settled(*range_, count + fails, count, fails, put, digest_of(data), bad)
        lease.log.settle(entry)
    lease.let_go("held", Note.HELD)
    return folder


def read_parts(target: Path) -> bytes:
    manifest = json.loads((target / "_manifest.json").read_text())
    return b"".join((target / part["name"]).read_bytes() for part in manifest["parts"])


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_held_job_is_verified_and_published(target: Path) -> None:
    held(target)
    assert not verify_job(target).is_published
    assert not target.exists()
    done = publish_job(target)
    assert (done.proof.records, done.proof.outputs, done.is_published) == (10, 10, True)
    assert target.read_bytes() == WHOLE
    assert os.listdir(target.parent) == ["out"]
    with pytest.raises(JobNotFoundError, match=r"there is no job of .*out: a run leaves one in"):
        verify_job(target)


@pytest.mark.parametrize(("call", "what"), [(publish_job, "publish"), (verify_job, "verify")])
def test_submitted_job_without_a_whole_output_has_nothing_to(
    call: Callable[[Path], ProvenJob], what: str, tmp_path: Path
) -> None:
    job = WatchedJob.submitted(tmp_path / "jobs").taken().settle(10)
    with pytest.raises(JobError, match=f"has nothing to {what}: it is running"):
        call(job.folder.path)


def test_held_folder_of_parts_is_published(target: Path) -> None:
    held(target, is_parts=True)
    assert verify_job(f"{target}/").proof.length == len(WHOLE)
    publish_job(f"{target}/")
    assert read_parts(target) == WHOLE
    assert os.listdir(target.parent) == ["out"]


def test_job_is_named_by_its_folder(target: Path) -> None:
    folder = held(target)
    assert verify_job(folder.path).proof.records == 10
    publish_job(folder.path)
    assert target.read_bytes() == WHOLE


@pytest.mark.parametrize("is_parts", [False, True])
def test_published_job_with_rejects_is_kept_without_its_outputs(
    target: Path, is_parts: bool
) -> None:
    folder = held(target, is_parts=is_parts, rejected=2)
    assert publish_job(target).proof.rejected == 2
    assert sorted(os.listdir(folder.path)) == ["log.1", "log.2", "rejects.1", "spec.json"]
    done = verify_job(target)
    assert (done.is_published, done.proof.records, done.proof.rejected) == (True, 12, 2)
    with pytest.raises(JobError, match="is published already"):
        publish_job(target)


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"x\n")


def add_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"line\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, "differs between byte 42 and 70: these are not the outputs of file 0, 6 to 10"),
        (add_line, "has 75 bytes, and the job has written 70"),
        (Path.unlink, "cannot read .*: No such file"),
    ],
)
def test_published_file_that_differs_is_found(
    target: Path, damage: Callable[[Path], None], told: str
) -> None:
    held(target, rejected=1)
    publish_job(target)
    damage(target)
    with pytest.raises((ProofError, ConfigurationError), match=told):
        verify_job(target)


def damage_manifest(folder: Path) -> None:
    (folder / "_manifest.json").write_text("[]")


def add_part(folder: Path) -> None:
    (folder / "part-00002.jsonl").write_text("")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: flip(folder / "part-00001.jsonl"), "part-00001.jsonl differs between"),
        (lambda folder: (folder / "part-00000.jsonl").unlink(), "part-00000.jsonl is missing"),
        (add_part, "part-00002.jsonl is none of the job's parts"),
        (damage_manifest, "_manifest.json is not that of job job"),
    ],
)
def test_published_parts_that_differ_are_found(
    target: Path, damage: Callable[[Path], None], told: str
) -> None:
    held(target, is_parts=True, rejected=1)
    publish_job(target)
    damage(target)
    with pytest.raises(ProofError, match=told):
        verify_job(target)


@pytest.mark.parametrize("is_parts", [False, True])
def test_held_outputs_that_differ_are_not_published(target: Path, is_parts: bool) -> None:
    folder = held(target, is_parts=is_parts)
    flip(folder.path / "parts" / "0")
    with pytest.raises(ProofError, match="parts/0 differs"):
        verify_job(target)
    with pytest.raises(ProofError, match="differs"):
        publish_job(target)
    assert os.listdir(target.parent) == [folder.path.name]
    assert folder.view().is_held  # and can be mended


def test_job_with_a_gap_is_neither_proven_nor_published(target: Path) -> None:
    held(target, end=11)
    with pytest.raises(ProofError, match="file 0, 10 to 11 is wanted, and nothing more is settled"):
        verify_job(target)
    with pytest.raises(ProofError):
        publish_job(target)


def test_job_that_has_not_ended_is_not_published(target: Path) -> None:
    folder = held(target)
    folder.discard()
    spec = Spec("job", (SourceFile("/in", 0, "1", ""),), str(target), ("U", "1", "2"), "f00d")
    JobFolder.create(beside(target), spec).take({"host": "h"}, "f00d").let_go("interrupted")
    with pytest.raises(JobError, match="the same command and --resume"):
        publish_job(target)


def test_target_is_replaced_only_if_asked_to_and_kept_if_wanted(target: Path) -> None:
    held(target)
    target.write_text("before\n")
    with pytest.raises(ConfigurationError, match=r"it exists; add --overwrite"):
        publish_job(target)
    done = publish_job(target, overwrite=True, backup=True)
    assert target.read_bytes() == WHOLE
    assert Path(done.backup) == target.with_name("out.job.backup")
    assert Path(done.backup).read_text() == "before\n"


def test_replaced_parts_are_kept(target: Path) -> None:
    held(target, is_parts=True)
    publish_job(target)
    held(target, is_parts=True)
    done = publish_job(target, overwrite=True, backup=True)
    assert read_parts(target) == read_parts(Path(done.backup)) == WHOLE


def test_file_is_copied_where_there_are_no_links(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links")

    held(target)
    target.write_text("before\n")
    monkeypatch.setattr("pyrmute_tasks.jobs.publish_file.os.link", no_links)
    done = publish_job(target, overwrite=True, backup=True)
    assert Path(done.backup).read_text() == "before\n"


def test_target_in_use_is_left_alone(target: Path) -> None:
    folder = held(target)
    lock = OutputLock(target, "other")
    lock.acquire()
    for call in (publish_job, discard_job):
        with pytest.raises(OutputInUseError):
            call(target)
    lock.release()
    assert folder.path.is_dir()


def test_only_runs_with_a_log_are_held(target: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave out --no-log"):
        FileOptions(source="in", target=target, hold=True, log=LogOptions(log=False))
    with pytest.raises(ConfigurationError, match="leave out --hold and --backup"):
        FileOptions(source="in", target="/dev/stdout", backup=True).refuse_streams()


def test_discarded_job_leaves_the_target(target: Path) -> None:
    held(target)
    target.write_text("mine\n")
    assert discard_job(target) == [beside(target)]
    assert os.listdir(target.parent) == ["out"]


def test_damaged_job_can_be_discarded(target: Path) -> None:
    folder = held(target)
    (folder.path / "spec.json").write_text("{")
    discard_job(target)
    assert not folder.path.exists()


def test_commands_say_in_one_line_what_they_did(target: Path) -> None:
    held(target, rejected=1)
    runner = CliRunner()
    done = runner.invoke(verify_command, [str(target)])
    told = f"{target} can be published, and is whole: 10 of 11 records in 70 bytes, 1 rejected"
    assert (done.exit_code, done.output) == (0, f"{told}; all digests agree\n")
    done = runner.invoke(publish_command, [str(target)])
    told = f"published {target}: 10 of 11 records in 70 bytes, 1 rejected\n"
    assert (done.exit_code, done.output) == (3, told)
    flip(target)
    done = runner.invoke(verify_command, [str(target)])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    done = runner.invoke(discard_command, [str(target)])
    assert (done.exit_code, done.output) == (0, f"discarded {beside(target)}\n")
    done = runner.invoke(verify_command, [str(target)])
    assert (done.exit_code, "there is no job of" in done.output) == (1, True)
