"""Ranges of files: every line is in exactly one of them, and only files in roots are read."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrmute_tasks.distributed.producer.parts import Resend, Settled
from pyrmute_tasks.distributed.producer.redelivery import Deliveries
from pyrmute_tasks.engine.chunk_parts import given_up_outcome, split_chunk
from pyrmute_tasks.engine.chunks import Chunk, Origin, Outcome, check_outcome
from pyrmute_tasks.errors import ConfigurationError, FrameError, ProcessDiedError
from pyrmute_tasks.failures import RecordFailure, RecordPlace, Stage
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.range_source import RangeSink, refuse_among_sources
from pyrmute_tasks.ranges import lines as range_lines
from pyrmute_tasks.ranges.attempts import Attempt
from pyrmute_tasks.ranges.frames import Piece, Place, Range, SourceFile, read_pieces, to_frame
from pyrmute_tasks.ranges.halving import halves_of
from pyrmute_tasks.ranges.lines import FileChangedError, Line, LineBlock, read_lines
from pyrmute_tasks.ranges.roots import OutsideRootsError, Roots, allow
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, pack

BOM = b"\xef\xbb\xbf"
TEXTS = st.sampled_from([b'{"a":1}', b'{"b": 2}\r', b"", b"  ", b"\r", b"x" * 40, b"\xff\xfe"])
NONCE = "0" * 32
SHA256 = "0" * 64


def range_of(path: Path, start: int, stop: int, longest: int = 1_000_000) -> Range:
    found = path.stat()
    source = SourceFile(os.fsencode(path), found.st_size, found.st_mtime_ns)
    return Range(source, start, stop, b"/folder", NONCE, longest)


def chunk_of(wanted: Range, index: int = 0) -> Chunk[bytes]:
    length = wanted.stop - wanted.start
    origin = Origin(os.fsdecode(wanted.source.path), 1)
    return Chunk(index, wanted.start, length, wanted.to_frame(), length, origin, is_range=True)


def lines_in(path: Path, start: int, stop: int, longest: int = 1_000_000) -> list[Any]:
    """Return the lines of a range, each with its place; of one that is too long its measures."""
    found: list[Any] = []
    with path.open("rb") as file:
        for block in read_lines(file, start, stop, path.stat().st_size, longest):
            if isinstance(block, Line):
                found.append((block.offset, block.stop, block.length, block.digest))
                continue
            assert block.text.endswith(b"\n")
            at = block.offset
            for line in block.text.split(b"\n")[:-1]:
                found.append((at, line))
                at += len(line) + 1
    return found


def lines_of(content: bytes) -> list[tuple[int, bytes]]:
    """Return all lines of a file with their places."""
    at = len(BOM) if content.startswith(BOM) else 0
    found = []
    rest = content[at:]
    for line in (rest.removesuffix(b"\n")).split(b"\n") if rest else []:
        found.append((at, line))
        at += len(line) + 1
    return found


@given(
    texts=st.lists(TEXTS, max_size=12),
    ends=st.booleans(),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    block=st.integers(1, 100),
)
@settings(deadline=None)
def test_each_line_is_in_exactly_one_range(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[bytes],
    ends: bool,
    bom: bool,
    cuts: list[int],
    block: int,
) -> None:
    path = tmp_path_factory.mktemp("ranges") / "in.jsonl"
    content = BOM * bom + b"\n".join(texts) + b"\n" * ends
    path.write_bytes(content)
    size = len(content)
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_lines, "_BLOCK_BYTES", block)
        patch.setattr(range_lines, "_SKIP_BYTES", block)
        found = [
            line
            for start, stop in itertools.pairwise(edges)
            for line in lines_in(path, start, stop)
        ]
    assert found == lines_of(content)


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=12),
    longest=st.integers(1, 60),
    cut=st.integers(1, 300),
)
@settings(deadline=None)
def test_long_line_is_reported_and_the_others_are_read(
    tmp_path_factory: pytest.TempPathFactory, texts: list[bytes], longest: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("long") / "in.jsonl"
    content = b"".join(text + b"\n" for text in texts)
    path.write_bytes(content)
    cut = min(cut, len(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_lines, "_SKIP_BYTES", 7)
        found = lines_in(path, 0, cut, longest)
        found += lines_in(path, cut, len(content), longest) if cut < len(content) else []
    expected = [
        (at, line)
        if len(line) < longest
        else (at, at + len(line) + 1, len(line), hashlib.sha256(line).hexdigest())
        for at, line in lines_of(content)
    ]
    assert found == expected


@pytest.mark.parametrize("change", [lambda text: text[:150], lambda text: text + b"more"])
def test_file_that_ends_elsewhere_is_noticed(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "in.jsonl"
    text = b"".join(b'{"n":%d}\n' % n for n in range(30)).rstrip()
    path.write_bytes(change(text))
    with path.open("rb") as file, pytest.raises(FileChangedError):
        list(read_lines(file, 0, len(text), len(text), 1000))


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=9),
    ends=st.booleans(),
    bom=st.booleans(),
    start=st.integers(0, 200),
)
@settings(deadline=None)
def test_halving_ends_with_one_line_each(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[bytes],
    ends: bool,
    bom: bool,
    start: int,
) -> None:
    path = tmp_path_factory.mktemp("halves") / "in.jsonl"
    content = BOM * bom + b"\n".join(texts) + b"\n" * ends
    path.write_bytes(content or b"\n")
    size = path.stat().st_size
    todo, done = [range_of(path, min(start, size - 1), size)], []
    expected = lines_in(path, todo[0].start, size)
    while todo:
        whole = todo.pop(0)
        halves = halves_of(whole)
        if halves:
            assert [whole.start, halves[1].start] == [halves[0].start, halves[0].stop]
            assert halves[1].stop == whole.stop
            todo += halves
        else:
            done.append(whole)
    done.sort(key=lambda part: part.start)
    found = [lines_in(path, part.start, part.stop) for part in done]
    assert all(len(lines) == 1 for lines in found) or (len(done) == 1 and len(found[0]) <= 1)
    assert [line for lines in found for line in lines] == expected


# --- what travels -------------------------------------------------------------------------


def test_range_survives_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 100)
    wanted = range_of(path, 3, 70)
    assert Range.from_frame(wanted.to_frame()) == wanted
    assert decode_frame(wanted.to_frame()).count == 67


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"in.jsonl"), (0, b"/a\0b"), (3, -1), (4, 3), (4, 101), (5, b"../x"), (6, ""), (7, 0)],
)
def test_damaged_range_is_refused(tmp_path: Path, at: int, value: object) -> None:
    values: list[object] = [b"/in.jsonl", 100, 1, 3, 70, b"/folder", NONCE, 1000]
    values[at] = value
    with pytest.raises(FrameError):
        Range.from_frame(Frame(FrameKind.RANGES, 1, pack(values)))


PIECE = Piece(3, 70, "0-ab", 50, 5, 4, 6, "0" * 32, (Place(2, 3, 20, 8, SHA256),))


def test_pieces_survive_their_frame() -> None:
    assert read_pieces(to_frame([PIECE, PIECE])) == [PIECE, PIECE]
    assert to_frame([PIECE, PIECE]).count == 8


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (2, "../in"),
        (2, "a/b"),
        (2, ""),
        (2, "/etc/passwd"),
        (3, 0),
        (4, 9),
        (5, -1),
        (6, 2),
        (7, "digest"),
        (8, [[7, 0, 0, 1, SHA256]]),
        (8, [[2, 3, 20, 8, "sha256"]]),
        (8, [[2, 3, 20, 8, None]]),
        (8, [[1, 2]]),
        (8, 5),
    ],
)
def test_damaged_piece_is_refused(at: int, value: object) -> None:
    values: list[object] = [3, 70, "0-ab", 50, 5, 4, 6, "0" * 32, [[2, 3, 20, 8, SHA256]]]
    assert Piece.from_values(values) == PIECE
    values[at] = value
    with pytest.raises(FrameError):
        Piece.from_values(values)


# --- parts of a range ---------------------------------------------------------------------


def settled(chunk: Chunk[bytes], failure: RecordFailure | None = None) -> Outcome[Frame]:
    """Return the outcome of a range of lines ``x\n``, or of those before a failure."""
    wanted = Range.from_frame(chunk.payload)
    count = (wanted.stop - wanted.start) // 2 if failure is None else failure.index
    size = 2 * count
    places: tuple[Place, ...] = ()
    if failure is not None:
        places = (Place(count, count, wanted.start + size, 1, SHA256),)
    piece = Piece(
        wanted.start,
        wanted.stop,
        f"a{wanted.start}" if count else "",
        size,
        count + len(places),
        count,
        count + len(places),
        "0" * 32 if count else "",
        places,
    )
    failures = (failure,) if failure else ()
    return Outcome(chunk.index, count, to_frame([piece]), failures)


def received(
    sink: RangeSink, chunk: Chunk[Any], outcome: Outcome[Frame]
) -> Outcome[Sequence[Piece]]:
    return sink.receive(chunk, replace(outcome, outputs=read_pieces(outcome.outputs)))  # type: ignore[arg-type]  # of another type


@pytest.mark.parametrize(
    ("source", "path", "is_taken"),
    [
        ("in", "in/new.jsonl", True),
        ("link", "in/new.ndjson", True),
        ("in/", "in/new.json", False),
        ("in", "in/.new.jsonl", False),
        ("in", "in/deep/new.jsonl", False),
        ("in", "new.jsonl", False),
        ("in/*.json*", "in/new.jsonl", True),
        ("link/*", "in/new", True),
        ("in/[ab]*", "in/new.jsonl", False),
        ("in/*", "in/.new", False),
        ("in/.n*", "in/.new", True),
        ("*/new", "in/new", True),
        ("*/new", "in/deep/new", False),
        ("in/one.jsonl", "in/new.jsonl", False),
        ("in/o[n]e", "in/one", False),  # a file of that name is there
    ],
)
def test_file_that_a_folder_or_pattern_would_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, path: str, is_taken: bool
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "o[n]e").touch()
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    for each in (source, f"{tmp_path}/{source}"):
        with pytest.raises(ConfigurationError, match="would be") if is_taken else nullcontext():
            refuse_among_sources(path, tmp_path / path, each)


def test_range_that_kills_is_halved_to_its_line_and_joined(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n" * 16)
    deliveries = Deliveries()
    before = chunk_of(range_of(path, 0, 8))
    todo = [deliveries.add(chunk_of(range_of(path, 8, 32), index=1))]
    found = None
    crashes = 0
    while todo:
        part = todo.pop(0)
        wanted = Range.from_frame(part.chunk.payload)
        if wanted.start <= 20 < wanted.stop:  # the eleventh line
            crashes += 1
            decided = deliveries.crashed(part.key, "signal 9")
            if isinstance(decided, Settled):
                found = decided.outcome
            elif isinstance(decided, Resend):
                todo += decided.parts
        else:
            found = deliveries.settle(part.key, settled(part.chunk)) or found
    assert found is not None
    assert crashes <= 7
    sink = RangeSink(HookSet())
    received(sink, before.without_payload(), settled(before))
    finished = received(sink, chunk_of(range_of(path, 8, 32), 1).without_payload(), found)
    [failure] = finished.failures
    assert isinstance(failure.error, ProcessDiedError)
    assert failure.index == 10
    assert failure.source == f"{path}, line 11"
    assert finished.count == 6
    assert next(piece.attempt for piece in finished.outputs if piece.attempt) == "a8"
    assert sum(piece.size_bytes for piece in finished.outputs) == 12
    place = finished.outputs[-1].places[0]
    digest = hashlib.sha256(b"x").hexdigest()
    assert (place.offset, place.length, place.digest) == (20, 1, digest)


@pytest.mark.parametrize(("start", "lines"), [(2, 1), (12, 0)])
def test_range_without_a_record_that_is_given_up_is_done(
    tmp_path: Path, start: int, lines: int
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n \t\n" + b"y" * 20 + b"\n")  # a blank line, and the middle of another
    outcome = given_up_outcome(chunk_of(range_of(path, start, start + 3)), ProcessDiedError("", 2))
    assert outcome.failures == ()
    [piece] = read_pieces(outcome.outputs)
    assert (piece.records_in, piece.lines) == (0, lines)


def test_job_that_ends_inside_of_a_range_keeps_what_is_before(tmp_path: Path) -> None:
    pieces = [
        Piece(0, 9, "a", 6, 3, 3, 3, "0" * 32),
        Piece(9, 18, "b", 6, 4, 3, 4, "0" * 32, (Place(1, 1, 11, 1, SHA256),)),
        Piece(18, 27, "", 0, 0, 0, 3),
        Piece(27, 36, "c", 2, 1, 1, 1, "0" * 32),
    ]
    sink = RangeSink(HookSet())
    kept = [
        [(piece.attempt, piece.records_out, piece.is_cut) for piece in sink.cut(pieces, count)]
        for count in range(7)
    ]
    assert kept == [
        [],
        [("a", 1, True)],
        [("a", 2, True)],
        [("a", 3, False)],
        [("a", 3, False), ("b", 1, True)],
        [("a", 3, False), ("b", 2, True)],
        [("a", 3, False), ("b", 3, False), ("", 0, False)],
    ]


def test_failure_in_a_later_part_is_counted_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n" * 16)
    deliveries = Deliveries()
    part = deliveries.add(chunk_of(range_of(path, 0, 32)))
    deliveries.crashed(part.key, "signal 9")
    decided = deliveries.crashed(part.key, "signal 9")
    assert isinstance(decided, Resend)
    first, second = decided.parts
    failure = RecordFailure.of(3, Stage.STEP, "", ValueError())
    assert deliveries.settle(second.key, settled(second.chunk, failure)) is None
    outcome = deliveries.settle(first.key, settled(first.chunk))
    assert outcome is not None
    assert [each.index for each in outcome.failures] == [11]
    finished = received(RangeSink(HookSet()), part.chunk.without_payload(), outcome)
    assert finished.failures[0].source == f"{path}, line 12"


def test_outcome_of_other_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n" * 16)
    deliveries = Deliveries()
    part = deliveries.add(chunk_of(range_of(path, 0, 16)))
    other = chunk_of(range_of(path, 16, 32))
    with pytest.raises(FrameError, match="not about its records"):
        deliveries.settle(part.key, settled(other))


def test_outcome_that_ended_before_its_last_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n" * 16)
    chunk = chunk_of(range_of(path, 0, 16))
    place = Place(2, 2, 4, 1, SHA256)
    piece = Piece(0, 16, "a", 4, 3, 2, 3, "0" * 32, (place,))
    failure = RecordFailure.of(2, Stage.STEP, "", ValueError())
    ended = Outcome(0, 2, to_frame([piece]), (failure,), is_final=True)
    assert check_outcome(ended, chunk) is ended
    more = replace(piece, records_in=4, records_out=3, lines=4)
    with pytest.raises(FrameError, match="not about its records"):
        check_outcome(replace(ended, count=3, outputs=to_frame([more])), chunk)


def test_line_alone_is_not_split(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 50 + b"\n" + b"y" * 50)
    assert split_chunk(chunk_of(range_of(path, 0, 51))) == []
    assert split_chunk(chunk_of(range_of(path, 7, 80))) == []
    assert [half.start for half in split_chunk(chunk_of(range_of(path, 0, 80)))] == [0, 51]


def test_records_that_are_skipped_have_their_text(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\nyy\nz\n")
    chunk = chunk_of(range_of(path, 0, 7))
    failure = RecordFailure.of(1, Stage.STEP, "", ValueError())
    place = Place(1, 1, 2, 2, hashlib.sha256(b"yy").hexdigest())
    piece = Piece(0, 7, "a", 4, 3, 2, 3, "0" * 32, (place,))
    outcome = Outcome(0, 2, to_frame([piece]), (failure,))

    def places(chunk: Chunk[Any], *, with_text: bool = False) -> RecordPlace | None:
        sink = RangeSink(HookSet(), with_text=with_text)
        [failure] = received(sink, chunk, outcome).failures
        return failure.place

    found = RecordPlace(str(path), 2, 2, 2, f"sha256:{place.digest}")
    assert places(chunk) == found
    assert places(chunk, with_text=True) == replace(found, text=b"yy")
    assert places(chunk.without_payload(), with_text=True) is None  # it ends the job
    path.write_bytes(b"x\nyz\nz\n")
    with pytest.raises(ConfigurationError, match=r"in\.jsonl has changed .* at line 2; nothing"):
        places(chunk, with_text=True)
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"cannot read .*in\.jsonl any more: No such"):
        places(chunk, with_text=True)


def test_line_numbers_start_at_one_in_each_file(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    for path in (first, second):
        path.write_bytes(b"x\n" * 8)
    sink = RangeSink(HookSet())
    one, two = chunk_of(range_of(first, 0, 16)), chunk_of(range_of(second, 0, 16), 1)
    received(sink, one.without_payload(), settled(one))
    failure = RecordFailure.of(2, Stage.STEP, "", ValueError())
    finished = received(sink, two.without_payload(), settled(two, failure))
    assert finished.failures[0].index == 10
    assert finished.failures[0].source == f"{second}, line 3"


# --- roots ----------------------------------------------------------------------------------


def test_only_what_lies_in_a_root_is_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "deep", outside):
        folder.mkdir(parents=True)
    (inside / "deep" / "in.jsonl").write_text("{}\n")
    (outside / "secret").write_text("no\n")
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (inside / "fine").symlink_to(inside / "deep")
    (tmp_path / "inside-not").mkdir()
    (tmp_path / "inside-not" / "x").write_text("no\n")
    roots = Roots([str(inside)])
    for name in ("deep/in.jsonl", "fine/in.jsonl", "deep/../deep/in.jsonl"):
        os.close(roots.open_file(os.fsencode(inside / name)))
    for refused in (
        inside / "link",
        inside / "folder" / "secret",
        inside / ".." / "outside" / "secret",
        tmp_path / "inside-not" / "x",
    ):
        with pytest.raises(OutsideRootsError):
            roots.open_file(os.fsencode(refused))
    with pytest.raises(OutsideRootsError):
        Roots().open_file(os.fsencode(inside / "deep" / "in.jsonl"))


def test_link_put_in_place_during_opening_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "in.jsonl").write_text("no\n")
    (inside / "folder").symlink_to(outside)
    # What the check saw was a folder.
    monkeypatch.setattr(os.path, "realpath", os.path.abspath)
    with pytest.raises(OSError, match="folder"):
        Roots([str(inside)]).open_file(os.fsencode(inside / "folder" / "in.jsonl"))


def test_folders_are_allowed_while_a_fleet_runs(tmp_path: Path) -> None:
    listed = tmp_path / "roots"
    listed.touch()
    roots = Roots(listed_in=str(listed))
    folder = tmp_path / "with\nnewline"
    folder.mkdir()
    with pytest.raises(OutsideRootsError), roots.open_folder(os.fsencode(folder)):
        pass
    allow(str(listed), [folder])
    allow(str(listed), [folder])
    with roots.open_folder(os.fsencode(folder)):
        pass
    assert listed.read_bytes().count(b"\0") == 1


def test_attempt_follows_no_link_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "0-guessed").symlink_to(victim)
    monkeypatch.setattr("pyrmute_tasks.ranges.attempts.attempt_name", lambda _: "0-guessed")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            Attempt(folder, "0").write(b"x\n")
    finally:
        os.close(folder)
    assert victim.read_text() == "precious"


def test_attempt_without_outputs_makes_no_file(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        attempt = Attempt(folder, "0:8+3")
        attempt.finish()
        assert (attempt.name, attempt.digest) == ("", "")
        attempt.write(b"x\n")
        attempt.finish()
        assert (tmp_path / attempt.name).read_bytes() == b"x\n"
        assert attempt.name.startswith("0.8+3-")
    finally:
        os.close(folder)


def test_block_is_what_memory_holds(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 999 + b"\n")
    with path.open("ab") as file:
        file.write((b"y" * 999 + b"\n") * 5000)
    with path.open("rb") as file:
        blocks = list(read_lines(file, 0, 5_000_000, 5_001_000, 10_000_000))
    assert all(isinstance(block, LineBlock) and len(block.text) < 1_100_000 for block in blocks)
    assert len(blocks) == 5
