"""The rejects of a file: their places, their causes, and nothing from the records unless asked."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks import ConfigurationError, OutputInUseError, RecordFailure, RecordPlace, Stage
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ChunkFailures, ErrorPolicy
from pyrmute_tasks.failures import RecordFailure as Failure
from pyrmute_tasks.failures import detach_failure
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource
from pyrmute_tasks.io.output_file import open_output
from pyrmute_tasks.io.rejects import RejectsFile, check_rejects, rejects_to_lines
from pyrmute_tasks.wire.frames import Compression, Frame, FrameKind, decode_frame
from tests.people import broken_step, invalid, manager, person

PLAN = manager.plan("Person", "1.0.0", "3.0.0")
SECRET = "Secret"


def run_chunk(chunk: Chunk[bytes]) -> Outcome[Frame]:
    failures = ChunkFailures(skips=True, capture=detach_failure)
    lines = decode_frame(chunk.payload).payload
    outputs, count, last = PLAN.migrate_lines(lines, chunk.start, failures)
    assert last is None
    frame = Frame(FrameKind.LINES, count, outputs)
    return Outcome(chunk.index, count, frame, tuple(failures.found))


def rejects_of(
    path: Path,
    *,
    chunk_size: int = 3,
    with_text: bool = False,
    compression: Compression = Compression.NONE,
) -> list[Failure]:
    source = JsonlSource(path, chunk_size, compression=compression)
    sink = JsonlSink(HookSet(), with_text=with_text)
    return [
        failure
        for chunk in source.chunks()
        for failure in sink.receive(chunk, run_chunk(chunk)).failures
    ]


def as_rows(rejects: list[Failure], *, with_records: bool = False) -> list[dict[str, Any]]:
    lines = rejects_to_lines(rejects, with_records=with_records).splitlines()
    return [json.loads(line) for line in lines]


LINES: dict[str, bytes] = {
    "good": json.dumps(person(1)).encode(),
    "step": json.dumps(broken_step(2)).encode(),
    "invalid": json.dumps(invalid(3), ensure_ascii=False).encode() + b"  ",
    "text": "no json: Sëcret".encode(),
    "carriage return": json.dumps(broken_step(4)).encode() + b"\r",
    "blank": b"",
    "spaces": b"  \t\r",
}


@given(
    kinds=st.lists(st.sampled_from(sorted(LINES)), max_size=20),
    has_mark=st.booleans(),
    ends=st.booleans(),
    chunk_size=st.integers(1, 6),
    compression=st.sampled_from(Compression),
)
def test_place_names_the_line(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    has_mark: bool,
    ends: bool,
    chunk_size: int,
    compression: Compression,
) -> None:
    path = tmp_path_factory.mktemp("rejects") / "in.jsonl"
    text = b"\n".join(LINES[kind] for kind in kinds) + (b"\n" if ends else b"")
    path.write_bytes((b"\xef\xbb\xbf" if has_mark else b"") + text)
    whole = path.read_bytes()
    rejects = rejects_of(path, chunk_size=chunk_size, compression=compression)
    bad = [(n, kind) for n, kind in enumerate(kinds, 1) if kind not in ("good", "blank", "spaces")]
    rows = as_rows(rejects)
    assert [row["line"] for row in rows] == [line for line, _ in bad]
    for row, (_, kind) in zip(rows, bad, strict=True):
        assert whole[row["offset"] : row["offset"] + row["length"]] == LINES[kind]
        assert row["digest"] == f"sha256:{hashlib.sha256(LINES[kind]).hexdigest()}"
        assert row["file"] == str(path)
    not_blank = [kind for kind in kinds if kind not in ("blank", "spaces")]
    indices = [n for n, kind in enumerate(not_blank) if kind != "good"]
    assert [row["index"] for row in rows] == indices


def rows_of(tmp_path: Path, *kinds: str, with_records: bool = False) -> list[dict[str, Any]]:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(LINES[kind] for kind in kinds))
    return as_rows(rejects_of(path, with_text=with_records), with_records=with_records)


def test_reject_row_describes_the_failure_without_the_record(tmp_path: Path) -> None:
    step, invalid_row, text = rows_of(tmp_path, "good", "step", "invalid", "text")
    assert list(step) == [
        *("index", "file", "line", "offset", "length", "digest"),
        *("step", "type", "message", "field"),
    ]
    assert (step["step"], step["type"], step["field"]) == ("2.0.0 → 3.0.0", "LookupError", None)
    assert step["message"].startswith("step Person 2.0.0 → 3.0.0 raised LookupError at people.py:")
    assert (invalid_row["step"], invalid_row["type"], invalid_row["field"]) == (
        None,
        "ValidationError",
        "age",
    )
    assert invalid_row["message"] == (
        "the migrated record is not a valid PersonV3 (age: value_error)"
    )
    assert text["type"] == "InvalidRecordError"
    assert text["message"].startswith("not valid JSON: expected ident at column")
    told = json.dumps([step, invalid_row, text])
    assert SECRET not in told
    assert "1003" not in told  # the age that is not plausible
    assert "First" not in told


def test_row_holds_the_record_if_asked(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "good", "step", "invalid", "text", with_records=True)
    assert [row["record"] for row in rows] == [broken_step(2), invalid(3), "no json: Sëcret"]
    assert rows[0]["message"].endswith(": no age for First2")
    assert "implausible age 1003" in rows[1]["message"]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"a": NaN}', '{"a": NaN}'),
        (b'{"a": "\xff"}', '{"a": "\\xff"}'),
        (b'{"a": 1}\r', {"a": 1}),
        (b"[1, 2]", [1, 2]),
        (b'{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ('{"a": "ë\u2028"}'.encode(), {"a": "ë\u2028"}),
        (b'{"a": 1', '{"a": 1'),
    ],
)
def test_record_that_is_not_json_becomes_a_string(line: bytes, record: Any) -> None:
    place = RecordPlace("in.jsonl", 1, 0, len(line), "sha256:", line)
    reject = RecordFailure(0, Stage.DECODE, "", ValueError(), place=place)
    [row] = rejects_to_lines([reject], with_records=True).decode().split("\n")[:-1]
    assert json.loads(row)["record"] == record


def test_reject_without_a_place_has_an_index() -> None:
    [row] = as_rows([RecordFailure(7, Stage.STEP, "", KeyError("x"))], with_records=True)
    assert (row["index"], row["line"], row["record"]) == (7, None, None)


def test_file_name_that_is_not_utf8() -> None:
    place = RecordPlace("in\udcff.jsonl", 1, 0, 2, "sha256:")
    [row] = as_rows([RecordFailure(0, Stage.STEP, "", KeyError(), place=place)])
    assert row["file"] == "in\udcff.jsonl"


# --- the file -----------------------------------------------------------------------------------


def rejects_file(tmp_path: Path, name: str = "rejects.jsonl", **options: Any) -> RejectsFile:
    source = tmp_path / "in.jsonl"
    source.touch()
    return RejectsFile(tmp_path / name, job="0123abcd", source=source, **options)


def test_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    with rejects_file(tmp_path) as file:
        file.write([RecordFailure(0, Stage.STEP, "", KeyError())])
        file.write([])
        assert not path.exists()
        file.commit()
        assert len(path.read_bytes().splitlines()) == 1
    with pytest.raises(ConfigurationError, match="it exists"):
        rejects_file(tmp_path, overwrite=False)
    with pytest.raises(OSError, match="broken"), rejects_file(tmp_path, "others.jsonl"):
        raise OSError("broken")
    assert not (tmp_path / "others.jsonl").exists()


def test_file_has_one_writer(tmp_path: Path) -> None:
    other = open_output(tmp_path / "rejects.jsonl", job="4567cdef")
    with other, pytest.raises(OutputInUseError), rejects_file(tmp_path):
        pass


def check(tmp_path: Path, name: str | None, **options: Any) -> None:
    source = tmp_path / "in.jsonl"
    source.touch()
    path = None if name is None else tmp_path / name
    policy = options.pop("policy", ErrorPolicy.skip())
    options = {"source": source, "target": tmp_path / "out.jsonl", **options}
    check_rejects(path, policy, **options)


def test_file_is_neither_source_nor_output(tmp_path: Path) -> None:
    check(tmp_path, "rejects.jsonl", with_records=True)
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    for name in ("out.jsonl", "link.jsonl"):
        with pytest.raises(ConfigurationError, match="it is the output; name another file"):
            check(tmp_path, name)
    with pytest.raises(ConfigurationError, match="it is the same file as"):
        check(tmp_path, "in.jsonl")


def test_file_is_none_of_the_source_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"bad\.jsonl: it would be read as one of the fil"):
        check(tmp_path, "bad.jsonl", source=tmp_path)
    check(tmp_path, "bad.json", source=tmp_path)


def test_rejects_file_needs_skipping_and_records_need_the_file(tmp_path: Path) -> None:
    check(tmp_path, None, policy=ErrorPolicy())
    with pytest.raises(ConfigurationError, match="add --on-error skip"):
        check(tmp_path, "rejects.jsonl", policy=ErrorPolicy())
    with pytest.raises(ConfigurationError, match="add --rejects FILE"):
        check(tmp_path, None, with_records=True)
