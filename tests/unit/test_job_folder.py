"""A job's folder: its spec, its wishes, its leftovers, its end."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyrmute_tasks.errors import (
    ConfigurationError,
    JobChangedError,
    JobError,
    JobExistsError,
    JobFormatError,
    JobLogError,
    JobNotFoundError,
    LeaseLostError,
)
from pyrmute_tasks.jobs.entries import OPEN_END, Ended, JobResult, Piece, Publishing, Range, Settled
from pyrmute_tasks.jobs.folder import NONCE, JobFolder, beside
from pyrmute_tasks.jobs.lease import take
from pyrmute_tasks.jobs.pruning import prune
from pyrmute_tasks.jobs.root import find_jobs
from pyrmute_tasks.jobs.spec import (
    CodeChanged,
    OptionChanged,
    Parent,
    SourceChanged,
    SourceFile,
    SourcesChanged,
    Spec,
    check_same,
    differences,
    read_spec,
    write_spec,
)
from pyrmute_tasks.jobs.states import Wish
from pyrmute_tasks.jobs.storage import FolderStorage
from pyrmute_tasks.jobs.want import FoundWant, Want, read_want, write_want


def spec_of(tmp_path: Path, job: str = "a1b2") -> Spec:
    source = tmp_path / "in.jsonl"
    if not source.exists():
        source.write_bytes(b"0123456789")
    return Spec(
        job,
        (SourceFile.of(source),),
        str(tmp_path / "out.jsonl"),
        ("User", "1.0.0", "2.0.0"),
        "f00d",
        "f00d tree",
        {"on_error": "skip", "max_errors": None},
    )


def settled(start: int, end: int, put: str | None, rejects: str | None = None) -> Settled:
    count = end - start
    rejected = 1 if rejects else 0
    return Settled(
        0,
        start,
        end,
        count,
        count - rejected,
        rejected,
        Piece(put, 0, count) if put else None,
        "",
        Piece(rejects, 0, 1) if rejects else None,
    )


# --- spec -----------------------------------------------------------------------------------


def test_spec_of_a_job_round_trips(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    spec = replace(spec_of(tmp_path), only=(Range(0, 2, 4),), parents=(Parent("p", "f"),))
    write_spec(storage, spec)
    assert read_spec(storage) == spec
    assert differences(spec, read_spec(storage)) == []


def test_wanted_ranges_follow_from_the_sources(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    files = [replace(spec.sources[0], size_bytes=size) for size in (10, 0, -1)]
    spec = replace(spec, sources=tuple(files))
    assert spec.wanted == (Range(0, 0, 10), Range(2, 0, OPEN_END))
    assert replace(spec, only=(Range(0, 2, 4),)).wanted == (Range(0, 2, 4),)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: path.write_bytes(b"01234567890"), "had 10 bytes, and has 11"),
        (lambda path: path.write_bytes(b"X123456789"), "begins with other bytes"),
        (lambda path: os.utime(path, ns=(1, 1)), "has been written since"),
    ],
)
def test_changed_source_is_named(
    tmp_path: Path, change: Callable[[Path], object], told: str
) -> None:
    spec = spec_of(tmp_path)
    path = tmp_path / "in.jsonl"
    change(path)
    assert differences(spec, spec_of(tmp_path)) == [SourceChanged(str(path), told)]


def test_other_files_code_and_options_are_named(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    other = replace(spec.sources[0], path="/other")
    now = replace(spec, sources=(other,), fingerprint="beef", options={"on_error": "raise"})
    found = differences(spec, replace(now, plan=("User", "1.0.0", "3.0.0")))
    assert found == [
        SourcesChanged((spec.sources[0].path,), ("/other",)),
        CodeChanged("f00d", "beef", "f00d tree"),
        OptionChanged("the plan", "User 1.0.0 2.0.0", "User 1.0.0 3.0.0"),
        OptionChanged("on_error", "skip", "raise"),
    ]
    assert [str(each) for each in found][2:] == [
        "the plan was User 1.0.0 2.0.0, and is User 1.0.0 3.0.0",
        "on_error was skip, and is raise",
    ]


def test_job_with_other_code_resumes_if_accepted(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    now = replace(spec, fingerprint="beef")
    with pytest.raises(JobChangedError, match=r"job a1b2 cannot resume: the code .* f00d → beef"):
        check_same(spec, now)
    assert check_same(spec, now, accept_code=True) == [CodeChanged("f00d", "beef", "f00d tree")]
    with pytest.raises(JobChangedError, match=r"the target was .*, and is elsewhere"):
        check_same(spec, replace(now, target="elsewhere"), accept_code=True)
    assert check_same(spec, spec) == []


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"format":1}', b'{"format":1,"job":3}', b"[" * 99999]
)
def test_damaged_spec_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "spec.json").write_bytes(data)
    with pytest.raises(JobLogError, match=r"spec\.json is damaged"):
        read_spec(FolderStorage(tmp_path))


def test_spec_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_bytes(b'{"format":3,"colour":"red"}')
    with pytest.raises(JobFormatError, match="has format 3"):
        read_spec(FolderStorage(tmp_path))


# --- want -----------------------------------------------------------------------------------


def test_want_round_trips(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    want = Want(Wish.PAUSE, 1000.0, 4, "0.1%", "ada@host", "release freeze", 12.5)
    assert read_want(storage, Want()) == FoundWant(Want())
    write_want(storage, want)
    write_want(storage, replace(want, wish=Wish.CANCEL))
    assert read_want(storage, Want()) == FoundWant(replace(want, wish=Wish.CANCEL))
    assert storage.names() == ["want.json"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "cannot be used"),
        (b'{"wish": "pau', "cannot be used"),
        (b"\xff\xfe", "cannot be used"),
        (b"[1]", "it is not a JSON object"),
        (b'{"wish": "explode"}', "'explode' is not a valid Wish"),
        (b'{"wish": 3}', "wish is not a text"),
        (b'{"window": true}', "window is not a number"),
        (b'{"max_rate": -1}', "max_rate is not between"),
        (b'{"max_rate": NaN}', "max_rate is not between"),
        (b'{"colour": "red"}', "unknown field colour"),
        pytest.param(b"[" * 60000, "cannot be used", id="deep"),
        pytest.param(b" " * 1_050_000, "more than 1048576 bytes", id="long"),
    ],
)
def test_want_that_cannot_be_used_leaves_the_last_one(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "want.json").write_bytes(data)
    last = Want(Wish.PAUSE)
    found = read_want(FolderStorage(tmp_path), last)
    assert found.want is last
    assert told in found.problem


def test_want_that_is_a_directory_leaves_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "want.json").mkdir()
    assert "cannot be read" in read_want(FolderStorage(tmp_path), Want()).problem


def test_want_may_be_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "want.json").write_text('{"wish": "cancel", "why": "mistake"}')
    found = read_want(FolderStorage(tmp_path), Want())
    assert found == FoundWant(Want(Wish.CANCEL, why="mistake"))


# --- folder ---------------------------------------------------------------------------------


def test_job_lives_beside_its_target() -> None:
    assert beside("/data/out.jsonl") == Path("/data/.out.jsonl.job")


def test_job_is_created_once_and_opened(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    path = beside(spec.target)
    with pytest.raises(JobNotFoundError, match="there is no job in"):
        JobFolder(path)
    JobFolder.create(path, spec)
    assert JobFolder(path).spec == spec
    with pytest.raises(JobExistsError):
        JobFolder.create(path, replace(spec, job="other"))
    assert JobFolder(path).spec == spec
    assert sorted(os.listdir(tmp_path)) == [".out.jsonl.job", "in.jsonl"]
    assert path.stat().st_mode & 0o777 == 0o700  # parts are records


def test_rights_of_a_job_may_be_wider(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path), is_private=False)
    assert folder.path.stat().st_mode & 0o777 == 0o711  # to be passed, and not to be listed
    assert folder.parts_path.stat().st_mode & 0o7777 == 0o1777
    assert (folder.parts_path / NONCE).read_text() == folder.nonce


@pytest.mark.parametrize("job", ["", "../up", ".hidden", "a/b", "a" * 101, "a\n"])
def test_job_with_a_name_that_is_a_path_is_refused(tmp_path: Path, job: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot have the id"):
        JobFolder.create(tmp_path / "job", replace(spec_of(tmp_path), job=job))


def test_creation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises((JobExistsError, OSError)):
        JobFolder.create(tmp_path / "taken", spec)
    assert sorted(os.listdir(tmp_path)) == ["in.jsonl", "taken"]


def end(folder: JobFolder, result: JobResult) -> None:
    lease = folder.take({"host": "h"}, "code")
    if result is not JobResult.FAILED:
        lease.log.log(Publishing(0, "", ""))
    lease.log.log(Ended(result, 3, 3, 0))
    lease.log.commit()


def test_end_is_read_from_the_last_line(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path))
    assert folder.end() is None
    lease = folder.take({"host": "h"}, "code")
    lease.log.settle(settled(0, 5, "parts/a"))
    lease.let_go("paused")
    assert folder.end() is None
    end(folder, JobResult.SUCCEEDED)
    found = folder.end()
    assert found is not None
    assert found.ended == Ended(JobResult.SUCCEEDED, 3, 3, 0)
    assert abs(found.at - time.time()) < 60
    assert folder.view().ended == found.ended
    with pytest.raises(JobError, match="job a1b2 has ended: succeeded"):
        folder.take({}, "code")
    with pytest.raises(LeaseLostError):  # who did not look before
        take(folder.storage, {}, "code")
    assert folder.end() == found
    assert folder.storage.names("parts") == [NONCE]


def test_failed_job_is_taken_up_again(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path))
    end(folder, JobResult.FAILED)
    assert folder.take({}, "code").epoch == 2
    assert folder.end() is None


def test_orphans_of_older_epochs_are_removed(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path))
    first = folder.take({}, "code")
    kept = {"parts/counts", "rejects.1"}
    gone = {"parts/a-double", "parts/in-flight", "parts/.hidden", "stream.1"}
    for name in kept | gone:
        (folder.path / name).write_bytes(b"data!")
    first.log.settle(settled(0, 5, "parts/counts", "rejects.1"))
    first.let_go("paused")
    second = folder.take({}, "code")
    named = second.log.put(b"x").name
    folder.remove_orphans(second)
    found = {f"parts/{name}" for name in folder.storage.names("parts")}
    assert found == {"parts/counts", f"parts/{NONCE}"}
    assert {"rejects.1", named} <= set(folder.storage.names())
    assert "stream.1" not in folder.storage.names()


def test_discarded_job_is_gone(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path))
    lease = folder.take({}, "code")
    folder.discard()
    assert os.listdir(tmp_path) == ["in.jsonl"]
    with pytest.raises(OSError, match="No such file"):
        lease.log.beat()
    with pytest.raises(JobNotFoundError, match="was discarded"):
        folder.view()


def test_jobs_are_found_and_old_ones_pruned(tmp_path: Path) -> None:
    root = tmp_path / "jobs"
    root.mkdir()
    for job in ("b", "a", "running", "newer"):
        JobFolder.create(root / job, spec_of(tmp_path, job))
    (root / "newer" / "spec.json").write_bytes(json.dumps({"format": 99}).encode())
    (root / "no-job").mkdir()
    (root / ".hidden").mkdir()
    assert [each.spec.job for each in find_jobs(root)] == ["a", "b", "running"]
    end(JobFolder(root / "a"), JobResult.SUCCEEDED)
    end(JobFolder(root / "b"), JobResult.FAILED)
    JobFolder(root / "running").take({}, "code")
    assert prune(root) == []
    assert prune(root, now=time.time() + 31 * 86400) == ["a", "b"]
    assert [each.spec.job for each in find_jobs(root)] == ["running"]


def test_piece_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = JobFolder.create(tmp_path / ".out.jsonl.job", spec_of(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        folder.first_lines(Piece("parts/0-ab", 0, 10), 1)
    assert caught.value.strerror == f"{folder.path}/parts/0-ab: No such file or directory"


def test_attempt_that_is_begun_meanwhile_does_not_keep_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = JobFolder.create(tmp_path / "job", spec_of(tmp_path))
    late = [folder.parts_path / f"0-{number}" for number in range(2)]
    remove = os.rmdir

    def rmdir(path: str, *, dir_fd: int | None = None) -> None:
        if late:
            late.pop().write_text("of a worker whose chunk was withdrawn")
        remove(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    folder.keep_history()
    assert not late
    assert [path.name for path in folder.path.iterdir()] == ["spec.json"]
