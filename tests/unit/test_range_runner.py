"""A worker's side of a range: the written attempts, and declined ranges."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.distributed.worker import range_runner
from pyrmute_tasks.distributed.worker.range_runner import RangeRunner, UnreachableError
from pyrmute_tasks.errors import FrameError, InvalidRecordError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.io.attempt_folder import AttemptFolder
from pyrmute_tasks.ranges.attempts import NONCE, Attempt
from pyrmute_tasks.ranges.frames import Piece, Place, Range, SourceFile, read_pieces
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame
from tests.people import broken_step, manager, person

PLAN = manager.plan("Person", "1.0.0", "3.0.0")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_runner, "_PROOF_S", 0.0)


class Storage:
    """A source and a job's folder, both in a root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path / "in.jsonl"
        self.folder = AttemptFolder(path / "job")
        self.runner = RangeRunner(Roots([str(path)]))

    def write(self, records: list[Any]) -> None:
        self.source.write_text("".join(f"{json.dumps(record)}\n" for record in records))

    def range(self, **changed: Any) -> Range:
        found = self.source.stat()
        values: dict[str, Any] = {
            "path": os.fsencode(self.source),
            "size_bytes": found.st_size,
            "mtime_ns": found.st_mtime_ns,
            "start": 0,
            "stop": found.st_size,
            "folder": os.fsencode(self.folder.path),
            "nonce": self.folder.nonce,
            "max_line_bytes": 1_000_000,
        } | changed
        source = SourceFile(values.pop("path"), values.pop("size_bytes"), values.pop("mtime_ns"))
        return Range(source, **values)

    def run(self, wanted: Range) -> tuple[Piece, RecordFailure | None]:
        frame, count, failure = self.runner.run(PLAN, "0", decode_frame(wanted.to_frame()))
        [piece] = read_pieces(decode_frame(frame))
        assert piece.records_out == count
        return piece, failure

    def attempts(self) -> list[str]:
        return sorted({path.name for path in self.folder.path.iterdir()} - {NONCE})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    storage.write([person(index) for index in range(50)])
    storage.folder.__enter__()
    return storage


def lines(count: int) -> bytes:
    models = (manager.migrate(person(index), "Person", "1.0.0", "3.0.0") for index in range(count))
    return b"".join(model.model_dump_json().encode() + b"\n" for model in models)


def test_attempt_holds_what_its_piece_tells(storage: Storage) -> None:
    piece, failure = storage.run(storage.range())
    assert failure is None
    text = storage.folder.path_of(piece).read_bytes()
    assert text == lines(50)
    assert (piece.size_bytes, piece.records_in, piece.lines) == (len(text), 50, 50)
    assert piece.digest == hashlib.blake2b(text, digest_size=16).hexdigest()


def test_each_run_writes_an_attempt_of_its_own(storage: Storage) -> None:
    first, _ = storage.run(storage.range())
    second, _ = storage.run(storage.range())
    assert first.attempt != second.attempt
    assert storage.attempts() == sorted([first.attempt, second.attempt])


def test_failure_is_told_with_its_place(storage: Storage) -> None:
    records = [person(0), person(1), broken_step(2), person(3)]
    texts = [json.dumps(record).encode() for record in records]
    texts.insert(1, b"")
    storage.source.write_bytes(b"\n".join(texts) + b"\n")
    piece, failure = storage.run(storage.range())
    assert failure is not None
    assert failure.index == 2
    offset = sum(len(text) + 1 for text in texts[:3])
    assert piece.places == (Place(2, 3, offset, len(texts[3]) + 1),)
    assert (piece.records_in, piece.records_out, piece.lines) == (3, 2, 4)
    assert storage.folder.path_of(piece).read_bytes() == lines(2)


def test_long_line_fails_without_being_read(storage: Storage) -> None:
    storage.write([person(0), {"name": "x" * 5000, "age": 1}, person(2)])
    piece, failure = storage.run(storage.range(max_line_bytes=1000))
    assert failure is not None
    assert isinstance(failure.error, InvalidRecordError)
    assert "the limit is 1000 (max_line_bytes)" in str(failure.error)
    assert (failure.index, piece.places[0].line, piece.records_out) == (1, 1, 1)


def declines(storage: Storage, wanted: Range) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        storage.run(wanted)
    return caught.value


def test_path_outside_of_its_roots_is_declined_for_the_job(storage: Storage) -> None:
    for changed in ({"path": b"/etc/passwd"}, {"folder": b"/tmp"}):
        error = declines(storage, storage.range(**changed))
        assert "none of its roots holds /" in error.reason
        assert error.is_lasting
    assert storage.attempts() == []


@pytest.mark.parametrize("prepare", [Path.unlink, lambda path: path.write_text("0" * 32)])
def test_folder_of_another_file_system_is_declined_for_the_job(
    storage: Storage, prepare: Callable[[Path], object]
) -> None:
    prepare(storage.folder.path / NONCE)
    error = declines(storage, storage.range())
    assert "does not see what the producer wrote" in error.reason
    assert error.is_lasting


@pytest.mark.parametrize("changed", [{"size_bytes": 10_000}, {"mtime_ns": 5}])
def test_file_that_is_not_as_it_was_is_declined(storage: Storage, changed: dict[str, int]) -> None:
    error = declines(storage, storage.range(**changed))
    assert "its size or time of modification differs" in error.reason
    assert not error.is_lasting
    assert storage.attempts() == []


def test_file_that_changes_while_it_is_read_leaves_no_attempt(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Attempt.write

    def write_and_touch(self: Attempt, text: bytes) -> None:
        write(self, text)
        os.utime(storage.source, ns=(1, 1))

    monkeypatch.setattr(Attempt, "write", write_and_touch)
    assert "differs" in declines(storage, storage.range()).reason
    assert storage.attempts() == []


def test_fifo_and_folder_are_declined_at_once(storage: Storage) -> None:
    os.mkfifo(storage.path / "fifo")
    for name in ("fifo", "job"):
        error = declines(storage, storage.range(path=os.fsencode(storage.path / name)))
        assert not error.is_lasting


@pytest.mark.parametrize(
    ("target", "what"),
    [("read", "cannot read"), ("write", "cannot write in"), ("sync", "write in")],
)
def test_faults_of_storage_are_declined_for_now(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, target: str, what: str
) -> None:
    def fail(*_: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if target == "read":
        monkeypatch.setattr(Roots, "open_file", fail)
    elif target == "write":
        monkeypatch.setattr(Attempt, "write", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    error = declines(storage, storage.range())
    assert what in error.reason
    assert "No space left on device" in error.reason
    assert not error.is_lasting
    assert storage.attempts() == []


def test_interrupted_run_leaves_no_attempt(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attempt, "finish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.run(storage.range())
    assert storage.attempts() == []


def test_frame_of_another_kind_is_refused(storage: Storage) -> None:
    with pytest.raises(FrameError, match="of another kind"):
        storage.runner.run(PLAN, "0", Frame(FrameKind.LINES, 1, b"{}\n"))
