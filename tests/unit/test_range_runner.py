"""A worker's side of a range: the written attempts, and declined ranges."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrmute_tasks.distributed.worker import range_runner
from pyrmute_tasks.distributed.worker.range_runner import RangeRunner, UnreachableError
from pyrmute_tasks.errors import FrameError, FrameTooLargeError, InvalidRecordError
from pyrmute_tasks.failures import RecordFailure
from pyrmute_tasks.jobs.folder import NONCE
from pyrmute_tasks.ranges import lines as range_lines
from pyrmute_tasks.ranges.attempts import Attempt, write_probe
from pyrmute_tasks.ranges.frames import Piece, Place, Range, SourceFile, read_pieces
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame
from tests.attempts import Attempts
from tests.people import broken_step, invalid, manager, person

PLAN = manager.plan("Person", "1.0.0", "3.0.0")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_runner, "_PROOF_S", 0.0)


class Storage:
    """A source and a job's folder, both in a root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path / "in.jsonl"
        self.folder = Attempts(path / "job")
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

    def run_skipping(
        self, wanted: Range, *, skips: bool = True
    ) -> tuple[Piece, list[RecordFailure]]:
        inputs = decode_frame(wanted.to_frame())
        frame, count, failures = self.runner.run(PLAN, "0", inputs, skips=skips)
        [piece] = read_pieces(decode_frame(frame))
        assert piece.records_out == count
        assert [bad.index for bad in failures.found] == [place.record for place in piece.places]
        return piece, failures.found

    def run(self, wanted: Range) -> tuple[Piece, RecordFailure | None]:
        piece, failures = self.run_skipping(wanted, skips=False)
        assert len(failures) <= 1
        return piece, failures[0] if failures else None

    def attempts(self) -> list[str]:
        return sorted({path.name for path in self.folder.path.iterdir()} - {NONCE})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    storage.write([person(index) for index in range(50)])
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


def test_failure_has_its_place(storage: Storage) -> None:
    records = [person(0), person(1), broken_step(2), person(3)]
    texts = [json.dumps(record).encode() for record in records]
    texts.insert(1, b"")
    storage.source.write_bytes(b"\n".join(texts) + b"\n")
    piece, failure = storage.run(storage.range())
    assert failure is not None
    assert failure.index == 2
    offset = sum(len(text) + 1 for text in texts[:3])
    digest = hashlib.sha256(texts[3]).hexdigest()
    assert piece.places == (Place(2, 3, offset, len(texts[3]), digest),)
    assert (piece.records_in, piece.records_out, piece.lines) == (3, 2, 4)
    assert storage.folder.path_of(piece).read_bytes() == lines(2)


def test_long_line_fails_without_being_read(storage: Storage) -> None:
    storage.write([person(0), {"name": "x" * 5000, "age": 1}, person(2)])
    piece, failure = storage.run(storage.range(max_line_bytes=1000))
    assert failure is not None
    assert isinstance(failure.error, InvalidRecordError)
    assert "the limit is 1000 (max_line_bytes)" in str(failure.error)
    assert (failure.index, piece.places[0].line, piece.records_out) == (1, 1, 1)


def test_long_line_is_skipped_with_its_digest(storage: Storage) -> None:
    records = [person(0), {"name": "x" * 5000, "age": 1}, person(2)]
    storage.write(records)
    piece, failures = storage.run_skipping(storage.range(max_line_bytes=1000))
    assert [type(bad.error) for bad in failures] == [InvalidRecordError]
    texts = [json.dumps(record).encode() for record in records]
    digest = hashlib.sha256(texts[1]).hexdigest()
    assert piece.places == (Place(1, 1, len(texts[0]) + 1, len(texts[1]), digest),)
    assert (piece.records_in, piece.records_out, piece.lines) == (3, 2, 3)


@given(lines=st.lists(st.sampled_from("gbi- "), max_size=30), data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_failures_are_found_where_a_loop_would(
    storage: Storage, lines: list[str], data: st.DataObject
) -> None:
    """Good, broken and invalid records, lines that are no record, and blank ones."""
    made: dict[str, Callable[[int], bytes]] = {
        "g": lambda at: json.dumps(person(at)).encode(),
        "b": lambda at: json.dumps(broken_step(at)).encode(),
        "i": lambda at: json.dumps(invalid(at)).encode() + b"\r",
        "-": lambda _: b"\xff",
        " ": lambda _: b" \t",
    }
    texts = [made[kind](at) for at, kind in enumerate(["g", *lines])]
    content = b"\n".join(texts) + b"\n" * data.draw(st.booleans())
    storage.source.write_bytes(content)
    expected = []
    record = offset = 0
    for at, (kind, text) in enumerate(zip("g" + "".join(lines), texts, strict=True)):
        if kind in "bi-":
            digest = hashlib.sha256(text).hexdigest()
            expected.append(Place(record, at, offset, len(text), digest))
        record += kind != " "
        offset += len(text) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_lines, "_BLOCK_BYTES", data.draw(st.integers(1, 500)))
        piece, failures = storage.run_skipping(storage.range())
    assert piece.places == tuple(expected)
    assert len(failures) == len(expected)
    assert (piece.records_in, piece.records_out) == (record, record - len(expected))
    assert piece.lines == content.count(b"\n") + (not content.endswith(b"\n"))
    good = [at for at, kind in enumerate(["g", *lines]) if kind == "g"]
    models = (manager.migrate(person(at), "Person", "1.0.0", "3.0.0") for at in good)
    written = b"".join(model.model_dump_json().encode() + b"\n" for model in models)
    assert storage.folder.path_of(piece).read_bytes() == written


def test_step_that_exits_ends_the_range(storage: Storage) -> None:
    storage.write([broken_step(0), person(1), {"name": "leave:", "age": 1}, broken_step(3)])
    inputs = decode_frame(storage.range().to_frame())
    frame, count, failures = storage.runner.run(PLAN, "0", inputs, skips=True)
    [piece] = read_pieces(decode_frame(frame))
    assert failures.ended
    assert [bad.index for bad in failures.found] == [0, 2]
    assert (count, piece.records_in, piece.lines) == (1, 3, 3)


def test_range_that_exhausts_memory_is_halved_unless_it_is_one_record(storage: Storage) -> None:
    big = {"name": f"allocate:{2**62}", "age": 1}
    for records in ([broken_step(0), big], [big, person(1)]):
        storage.write(records)
        with pytest.raises(MemoryError):
            storage.run_skipping(storage.range())
    storage.write([big])
    piece, [failure] = storage.run_skipping(storage.range())
    assert "MemoryError" in str(failure.error)
    assert piece.records_out == 0
    assert storage.attempts() == []


def test_range_with_too_many_failures_is_left_to_halving(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write([broken_step(index) for index in range(30)] + [person(30)])
    monkeypatch.setattr(range_runner, "_MOST_FAILURES", 29)
    with pytest.raises(FrameTooLargeError):
        storage.run_skipping(storage.range())
    assert storage.attempts() == []
    monkeypatch.setattr(range_runner, "_MOST_FAILURES", 30)
    _, failures = storage.run_skipping(storage.range())
    assert len(failures) == 30


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


@pytest.mark.parametrize("is_link", [False, True])
def test_folder_that_was_replaced_gets_no_attempt(
    storage: Storage, tmp_path_factory: pytest.TempPathFactory, is_link: bool
) -> None:
    storage.run(storage.range())
    storage.folder.path.rename(storage.path / "away")
    other = tmp_path_factory.mktemp("outside")
    if is_link:
        storage.folder.path.symlink_to(other)
    else:
        storage.folder.path.mkdir()
        other = storage.folder.path
    error = declines(storage, storage.range())
    assert error.is_lasting is is_link
    assert ("none of its roots" if is_link else "is not the folder") in error.reason
    assert not list(other.iterdir())


@pytest.mark.parametrize("changed", [{"size_bytes": 10_000}, {"mtime_ns": 5}])
def test_range_of_a_changed_file_is_declined(storage: Storage, changed: dict[str, int]) -> None:
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


@pytest.mark.parametrize(
    ("number", "is_lasting"),
    [(errno.EACCES, True), (errno.EROFS, True), (errno.ENOSPC, False)],
)
def test_worker_that_cannot_write_is_told_before_it_reads_a_line(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int, is_lasting: bool
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    def read(*_: object) -> Any:
        raise AssertionError("it has read")

    monkeypatch.setattr(range_runner, "write_probe", fail)
    monkeypatch.setattr(Roots, "open_file", read)
    error = declines(storage, storage.range())
    assert error.reason.startswith(f"it cannot write in {storage.folder.path}: ")
    assert os.strerror(number) in error.reason
    assert error.is_lasting is is_lasting


def test_worker_probes_a_folder_once_and_leaves_nothing_of_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = []

    def probe(folder: int) -> None:
        probes.append(folder)
        write_probe(folder)

    monkeypatch.setattr(range_runner, "write_probe", probe)
    attempts = [storage.run(storage.range())[0].attempt for _ in range(3)]
    assert len(probes) == 1
    assert storage.attempts() == sorted(attempts)
