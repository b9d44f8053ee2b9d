"""Proof, joining and publishing of a job's output, also when cut off anywhere."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.errors import ConfigurationError, JobLogError, LeaseLostError, ProofError
from pyrmute_tasks.jobs import output
from pyrmute_tasks.jobs.entries import JobResult, Piece, Settled
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.log import LogWriter
from pyrmute_tasks.jobs.output import Output, digest_of, in_order
from pyrmute_tasks.jobs.publish import publish
from pyrmute_tasks.jobs.publish_file import FilePublication
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.states import LoggedState

WHOLE = b"".join(b"line %d\n" % at for at in range(10))


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    source = SourceFile("/in.jsonl", 10, "1", "")
    spec = Spec("job", (source,), str(tmp_path / "out"), ("User", "1.0.0", "2.0.0"), "f00d")
    return JobFolder.create(tmp_path / "job", spec)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


def take(folder: JobFolder) -> Lease:
    return folder.take({"host": "h"}, "code")


def settle(folder: JobFolder, lease: Lease, start: int, end: int, *, by_reference: bool) -> None:
    data = b"".join(b"line %d\n" % at for at in range(start, end))
    if by_reference:
        name = f"parts/{start}-{end}.{lease.epoch}"
        (folder.path / name).write_bytes(data)
        put = Piece(name, 0, len(data))
    else:
        put = lease.log.put(data)
    count = end - start
    lease.log.settle(Settled(0, start, end, count, count, 0, put, digest_of(data)))


def do_all(folder: JobFolder) -> Lease:
    """Settle the whole source, both ways, out of order, in two epochs."""
    first = take(folder)
    settle(folder, first, 4, 6, by_reference=True)
    settle(folder, first, 0, 2, by_reference=False)
    settle(folder, first, 2, 4, by_reference=False)
    first.let_go("paused")
    second = take(folder)
    settle(folder, second, 6, 7, by_reference=False)
    settle(folder, second, 9, 10, by_reference=True)
    settle(folder, second, 7, 9, by_reference=False)
    second.log.commit()
    return second


def files_beside(target: Path) -> list[str]:
    return sorted(os.listdir(target.parent))


def test_output_is_joined_in_order_of_the_source(folder: JobFolder, target: Path) -> None:
    lease = do_all(folder)
    proof = publish(Output(folder), lease, FilePublication(folder, target))
    assert target.read_bytes() == WHOLE
    assert (proof.length, proof.records, proof.outputs) == (len(WHOLE), 10, 10)
    Output(folder).compare(proof, target)
    assert files_beside(target) == ["job", "out"]
    view = folder.view()
    assert view.state is LoggedState.SUCCEEDED
    assert view.ended is not None
    assert view.ended.records == 10


def test_rejects_are_part_of_the_proof(folder: JobFolder, target: Path) -> None:
    lease = take(folder)
    settle(folder, lease, 0, 4, by_reference=False)
    rejects = lease.log.put_rejects(b"{}")
    lease.log.settle(Settled(0, 4, 10, 6, 0, 6, None, "", rejects))
    lease.log.commit()
    proof = publish(Output(folder), lease, FilePublication(folder, target))
    assert (proof.records, proof.outputs, proof.rejected) == (10, 4, 6)
    assert target.read_bytes() == WHOLE[: len(target.read_bytes())]
    end = folder.end()
    assert end is not None
    assert end.ended.result is JobResult.SUCCEEDED_WITH_REJECTS


def test_entries_are_read_in_order_whatever_their_distance(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_BLOCK_BYTES", 700)
    lease = take(folder)
    starts = [(at * 37) % 101 for at in range(101)]
    for start in starts:
        lease.log.settle(Settled(0, start, start + 1, 1, 1, 0, Piece("stream.1", start, 1)))
    lease.log.commit()
    assert [entry.start for entry in in_order(folder.storage)] == list(range(101))


def test_job_with_a_gap_is_not_published(folder: JobFolder, target: Path) -> None:
    lease = take(folder)
    settle(folder, lease, 0, 4, by_reference=False)
    settle(folder, lease, 5, 10, by_reference=False)
    lease.log.commit()
    with pytest.raises(ProofError, match="file 0, 4 to 10 is wanted, and file 0, 5 to 10 is sett"):
        publish(Output(folder), lease, FilePublication(folder, target))
    assert files_beside(target) == ["job"]
    settle(folder, lease, 4, 5, by_reference=False)
    publish(Output(folder), lease, FilePublication(folder, target))
    assert target.read_bytes() == WHOLE


def test_ranges_beyond_the_source_are_not_proof(folder: JobFolder) -> None:
    lease, spec = do_all(folder), folder.spec
    assert Output(folder).prove().records == 10
    for sizes, told in [
        ([9], "nothing more is wanted, and file 0, 9 to 10 is settled"),
        ([11], "file 0, 10 to 11 is wanted, and nothing more is settled"),
        ([10, 1], "file 1, 0 to 1 is wanted"),
        ([0, 10], "file 1, 0 to 10 is wanted, and file 0, 0 to 2"),
    ]:
        sources = tuple(replace(spec.sources[0], size_bytes=size) for size in sizes)
        folder.spec = replace(spec, sources=sources)
        with pytest.raises(ProofError, match=told):
            Output(folder).prove()
    lease.log.close()


def test_parts_that_are_gone_or_cut_are_not_proof(folder: JobFolder, target: Path) -> None:
    lease = do_all(folder)
    part = folder.path / "parts/4-6.1"
    data = part.read_bytes()
    part.write_bytes(data[:-1])
    with pytest.raises(ProofError, match="lacks outputs of file 0, 4 to 6"):
        publish(Output(folder), lease, FilePublication(folder, target))
    part.unlink()
    with pytest.raises(ProofError, match="is missing, and holds settled outputs"):
        publish(Output(folder), lease, FilePublication(folder, target))
    assert files_beside(target) == ["job"]


def test_part_with_other_bytes_is_not_published(folder: JobFolder, target: Path) -> None:
    lease = do_all(folder)
    part = folder.path / "parts/4-6.1"
    part.write_bytes(part.read_bytes().upper())
    with pytest.raises(ProofError, match="not the outputs of file 0, 4 to 6"):
        publish(Output(folder), lease, FilePublication(folder, target))
    assert not target.exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data.replace(b"5", b"6")])
def test_verify_finds_damage_later(
    folder: JobFolder, target: Path, damage: Callable[[bytes], bytes]
) -> None:
    proof = publish(Output(folder), do_all(folder), FilePublication(folder, target))
    target.write_bytes(damage(WHOLE))
    with pytest.raises(ProofError, match=r"out (has 69 bytes|differs between byte 28 and 42)"):
        Output(folder).compare(proof, target)


def test_target_is_replaced_only_if_asked_to(folder: JobFolder, target: Path) -> None:
    target.write_bytes(b"old")
    lease = do_all(folder)
    with pytest.raises(ConfigurationError, match="it exists"):
        publish(Output(folder), lease, FilePublication(folder, target))
    assert target.read_bytes() == b"old"
    publication = FilePublication(folder, target, lambda descriptor: os.fchmod(descriptor, 0o640))
    publish(Output(folder), lease, publication, overwrite=True)
    assert target.read_bytes() == WHOLE
    assert target.stat().st_mode & 0o777 == 0o640


def test_writer_without_the_lease_publishes_nothing(folder: JobFolder, target: Path) -> None:
    frozen = do_all(folder)
    take(folder)
    with pytest.raises(LeaseLostError):
        publish(Output(folder), frozen, FilePublication(folder, target))
    assert not target.exists()


def test_join_without_copies_in_the_kernel(
    folder: JobFolder, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    publish(Output(folder), do_all(folder), FilePublication(folder, target))
    assert target.read_bytes() == WHOLE


def test_publishing_without_hard_links(
    folder: JobFolder, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = do_all(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    publish(Output(folder), lease, FilePublication(folder, target))
    assert target.read_bytes() == WHOLE


def killing(call: Callable[..., object], *, after: bool, at: int) -> Callable[..., object]:
    """Kill the process before or after a call, at the n-th time."""
    calls = 0

    def killed(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at and not after:
            raise Killed
        result = call(*args, **options)
        if calls == at:
            raise Killed
        return result

    return killed


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    ("owner", "call", "at"),
    [
        (FilePublication, "remove_temps", 1),
        (Output, "join", 1),
        (Output, "compare", 1),
        (LogWriter, "commit", 2),
        (FilePublication, "appear", 1),
        (LogWriter, "commit", 3),
    ],
)
def test_publishing_that_is_cut_off_is_taken_up(
    folder: JobFolder,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    call: str,
    at: int,
    *,
    after: bool,
    overwrite: bool,
) -> None:
    lease = do_all(folder)
    with monkeypatch.context() as patched:
        patched.setattr(owner, call, killing(getattr(owner, call), after=after, at=at))
        with pytest.raises(Killed):
            publish(Output(folder), lease, FilePublication(folder, target), overwrite=overwrite)
    ended = call == "commit" and at == 3 and after
    assert (folder.end() is not None) == ended
    if not ended:
        publish(Output(folder), take(folder), FilePublication(folder, target), overwrite=overwrite)
    assert target.read_bytes() == WHOLE
    assert files_beside(target) == ["job", "out"]
    assert folder.view().state is LoggedState.SUCCEEDED


def test_publishing_resumes_after_the_rename(
    folder: JobFolder, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = do_all(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killing(Path.unlink, after=False, at=1))
        with pytest.raises(Killed):
            publish(Output(folder), lease, FilePublication(folder, target))
    assert target.stat().st_nlink == 2  # both names of one file
    publish(Output(folder), take(folder), FilePublication(folder, target))
    assert files_beside(target) == ["job", "out"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_frozen_publisher_replaces_nothing(
    folder: JobFolder, target: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    frozen, appear = do_all(folder), FilePublication.appear

    def sleep(publication: FilePublication, lease: Lease, **options: Any) -> None:
        monkeypatch.undo()
        publish(Output(folder), take(folder), FilePublication(folder, target), overwrite=overwrite)
        target.write_bytes(b"used by somebody")
        appear(publication, lease, **options)

    monkeypatch.setattr(FilePublication, "appear", sleep)
    with pytest.raises(LeaseLostError, match="was removed"):
        publish(Output(folder), frozen, FilePublication(folder, target), overwrite=overwrite)
    assert target.read_bytes() == b"used by somebody"


def test_damaged_log_publishes_nothing(folder: JobFolder, target: Path) -> None:
    lease = do_all(folder)
    path = folder.path / "log.1"
    path.write_bytes(path.read_bytes().replace(b'"in":2', b'"in":3'))
    with pytest.raises(JobLogError, match="damaged"):
        publish(Output(folder), lease, FilePublication(folder, target))
    assert not target.exists()
