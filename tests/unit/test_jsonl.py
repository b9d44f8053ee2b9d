import contextlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrmute_tasks.errors import ConfigurationError, FrameTooLargeError
from pyrmute_tasks.io import jsonl
from pyrmute_tasks.io.jsonl import JsonlSource
from pyrmute_tasks.wire import frames as codec
from pyrmute_tasks.wire.frames import decode_frame

LINES = st.sampled_from([b'{"a":1}', b'  {"b": 2} \r', b"", b"   ", b"\t\r", b"not json", b"\r{}"])


def expected(content: bytes) -> list[tuple[int, bytes]]:
    """Return line number and text of every line that is not blank."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [(n, line) for n, line in enumerate(lines, 1) if line.strip(b" \t\r")]


@given(
    lines=st.lists(LINES, max_size=20),
    ends=st.booleans(),
    bom=st.booleans(),
    size=st.none() | st.integers(1, 5),
    limit=st.none() | st.integers(1, 25),
    is_open=st.booleans(),
)
@settings(deadline=None)
def test_every_line_leaves_in_order_with_its_number(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends: bool,
    bom: bool,
    size: int | None,
    limit: int | None,
    is_open: bool,
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "in.jsonl"
    content = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + (b"\n" if ends else b"")
    path.write_bytes(content)
    found: list[tuple[int, bytes]] = []
    source = JsonlSource(io.BytesIO(content) if is_open else path, size, limit=limit)
    for number, chunk in enumerate(source.chunks()):
        frame = decode_frame(chunk.payload)
        texts = bytes(frame.payload).split(b"\n")[:-1]
        assert chunk.origin is not None
        assert (chunk.index, chunk.start) == (number, len(found))
        assert len(texts) == chunk.count == frame.count
        assert size is None or chunk.count <= size
        found += [(chunk.origin.line_of(n), text) for n, text in enumerate(texts)]
    assert found == expected(content)[:limit]
    if not is_open:
        assert source.left_bytes == 0
    if limit is None:
        assert source.bytes_read == len(content)


def test_pipe_is_not_waited_for_behind_the_last_record_wanted() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"{}\n\n{}\n{}\n")
    with open(reader, "rb") as file, open(writer, "wb"):
        for size in (None, 5):
            source = JsonlSource(file, size, limit=2)
            chunks = source.chunks()
            with contextlib.closing(chunks):
                assert next(chunks).count == 2
                assert next(chunks, None) is None
            os.write(writer, b"{}\n{}\n")


def test_chunks_are_cut_by_bytes_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text":"%s"}\n' % (b"x" * 1000) * 3000)
    source = JsonlSource(path)
    chunks = list(source.chunks())
    # Half a MiB, then half of what is left, and no less than 64 KiB.
    assert [chunk.count for chunk in chunks] == [519, 519, 519, 519, 463, 231, 116, 65, 49]
    assert source.bytes_read == source.size_bytes


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        JsonlSource(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        JsonlSource(tmp_path)


def test_a_very_long_line_is_a_chunk_of_its_own_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "_LONG_LINE_BYTES", 100_000)
    path = tmp_path / "in.jsonl"
    lines = [b'{"a":%d}' % number for number in range(5)]
    lines[3] = b'{"a":"%s"}' % (b"x" * 2_000_000)
    path.write_bytes(b"\n\n" + b"\n".join(lines))
    chunks = list(JsonlSource(path).chunks())
    assert [chunk.count for chunk in chunks] == [3, 1, 1]
    assert b"".join(decode_frame(chunk.payload).payload for chunk in chunks).splitlines() == lines
    monkeypatch.setattr(codec, "MAX_FRAME_BYTES", 1_000_000)
    source = JsonlSource(path).chunks()
    assert next(source).count == 3
    with pytest.raises(FrameTooLargeError, match="migrate it in one process") as caught:
        next(source)
    assert caught.value.record_index == 3
    assert caught.value.record_source == f"{path}, line 6"
