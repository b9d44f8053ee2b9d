import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrmute_tasks.codec import decode_frame
from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io import JsonlSink, JsonlSource

LINES = st.sampled_from([b'{"a":1}', b'  {"b": 2} \r', b"", b"   ", b"\t\r", b"not json", b"\r{}"])


def expected(content: bytes) -> list[tuple[int, bytes]]:
    """Line number and text of every line that is not blank."""
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [(n, line) for n, line in enumerate(lines, 1) if line.strip(b" \t\r")]


@given(
    lines=st.lists(LINES, max_size=20),
    ends=st.booleans(),
    bom=st.booleans(),
    size=st.none() | st.integers(1, 5),
)
@settings(deadline=None)
def test_every_line_leaves_in_order_with_its_number(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends: bool,
    bom: bool,
    size: int | None,
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "in.jsonl"
    content = (b"\xef\xbb\xbf" if bom else b"") + b"\n".join(lines) + (b"\n" if ends else b"")
    path.write_bytes(content)
    found: list[tuple[int, bytes]] = []
    for number, chunk in enumerate(JsonlSource(path, size).chunks()):
        frame = decode_frame(chunk.payload)
        texts = bytes(frame.payload).split(b"\n")[:-1]
        assert chunk.origin is not None
        assert (chunk.index, chunk.start) == (number, len(found))
        assert len(texts) == chunk.count == frame.count
        assert size is None or chunk.count <= size
        found += [(chunk.origin.line_of(n), text) for n, text in enumerate(texts)]
    assert found == expected(content)


def test_chunks_are_cut_by_bytes_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text":"%s"}\n' % (b"x" * 1000) * 3000)
    source = JsonlSource(path)
    chunks = list(source.chunks())
    # Half a MiB, then half of what is left, and no less than 64 KiB.
    assert [chunk.count for chunk in chunks] == [519, 519, 519, 519, 463, 231, 116, 65, 49]
    assert source.bytes_read == source.size_bytes


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        JsonlSource(tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        JsonlSource(tmp_path)


def test_a_sinks_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    with JsonlSink(path) as sink:
        sink.write(b"new\n")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [True, False])
def test_a_sink_that_fails_leaves_the_target_alone(tmp_path: Path, keep: bool) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonlSink(path, keep_partial=keep)
    with pytest.raises(RuntimeError), sink:
        sink.write(b"some\n")
        raise RuntimeError
    assert not path.exists()
    assert sink.partial_path.exists() == keep
    assert not keep or sink.partial_path.read_bytes() == b"some\n"


def test_a_target_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"), JsonlSink(tmp_path):
        pass
    with pytest.raises(ConfigurationError, match="cannot write"), JsonlSink(tmp_path / "a" / "b"):
        pass


def test_an_interrupt_while_a_sink_opens_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_and_be_interrupted(path: Path, mode: str) -> None:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", open_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt), JsonlSink(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_while_the_disk_is_busy_is_whole(tmp_path: Path) -> None:
    blocks = [bytes([65 + number]) * (5 * 1024 * 1024) + b"\n" for number in range(6)]
    with JsonlSink(tmp_path / "out.jsonl") as sink:
        for block in blocks:
            sink.write(memoryview(block))
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(blocks)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 10 MiB, which looks like a full disk to whom it writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 1024 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_is_told(tmp_path: Path, small_disk: None) -> None:
    path = tmp_path / "out.jsonl"
    with (
        pytest.raises(ConfigurationError, match=r"cannot write .*: File too large"),
        JsonlSink(path) as sink,
    ):
        for _ in range(11):
            sink.write(b"x" * (1024 * 1024))
    assert list(tmp_path.iterdir()) == []
