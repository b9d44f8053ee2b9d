"""Open files as sources and targets: descriptors that do not block, and text."""

import gzip
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io.jsonl import JsonlSource
from pyrmute_tasks.io.open_files import OpenOutput, OpenSource
from pyrmute_tasks.wire.frames import decode_frame
from tests.conftest import wait_until

LINES = b"".join(b'{"n": %d}\n' % number for number in range(30_000))  # more than a pipe holds


@contextmanager
def in_thread(work: threading.Thread) -> Iterator[None]:
    work.start()
    try:
        yield
    finally:
        work.join(10)
        assert not work.is_alive()


@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_nonblocking_target_gets_everything(buffering: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    found = bytearray()

    def read() -> None:
        while data := os.read(reading, 50_000):
            found.extend(data)

    with (
        open(reading, "rb", buffering=0),
        in_thread(threading.Thread(target=read)),
        open(writing, "wb", buffering=buffering) as file,
        OpenOutput(file) as output,
    ):
        for at in range(0, len(LINES), 100_000):
            output.write(LINES[at : at + 100_000])
        output.commit()
    assert found == LINES


@pytest.mark.parametrize("chunk_size", [None, 1000])
@pytest.mark.parametrize("buffering", [0, -1], ids=["raw", "buffered"])
def test_nonblocking_source_is_read_to_its_end(buffering: int, chunk_size: int | None) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write() -> None:
        with open(writing, "wb", buffering=0) as file:
            for at in range(0, len(LINES), 10_001):  # never whole lines
                left = memoryview(LINES[at : at + 10_001])
                while left:
                    left = left[file.write(left) :]

    with open(reading, "rb", buffering=buffering) as file:
        with in_thread(threading.Thread(target=write)):
            chunks = JsonlSource(file, chunk_size).chunks()
            found = b"".join(bytes(decode_frame(chunk.payload).payload) for chunk in chunks)
        assert found == LINES
        assert not file.closed


def test_lines_of_a_nonblocking_source_leave_as_they_come() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb") as file, open(writing, "wb", buffering=0) as writer:
        lines: list[bytes] = []

        def read() -> None:
            for line in OpenSource(file):
                lines.append(line)  # one at a time, so that others see it

        with in_thread(threading.Thread(target=read)):
            writer.write(b"1\n2")
            wait_until(lambda: lines == [b"1\n"], "the first line is there")
            writer.write(b"3\n")
            wait_until(lambda: lines == [b"1\n", b"23\n"], "the second line is whole")
            writer.close()


def test_text_from_a_nonblocking_descriptor_is_refused() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with (
        open(reading, encoding="utf-8") as file,
        open(writing, "wb"),
        pytest.raises(ConfigurationError, match="give the binary file"),
    ):
        OpenSource(file)


def test_target_that_takes_nothing_is_reported() -> None:
    class Full:
        def write(self, data: object) -> int:
            return 0

    with pytest.raises(ConfigurationError, match="it takes nothing"):
        OpenOutput(Full()).write(b"{}\n")


def test_target_that_does_not_tell_has_taken_everything() -> None:
    class Quiet(list[bytes]):
        def write(self, data: memoryview) -> None:
            self.append(bytes(data))

    quiet = Quiet()
    OpenOutput(quiet).write(b"{}\n")
    assert quiet == [b"{}\n"]


def test_encoding_that_lacks_a_character_is_named_without_it(tmp_path: Path) -> None:
    with (
        (tmp_path / "out").open("w", encoding="latin-1") as file,
        pytest.raises(ConfigurationError, match="its encoding, latin-1") as caught,
    ):
        OpenOutput(file).write('{"price": "5 €"}\n'.encode())
    assert "€" not in str(caught.value)


def test_bytes_that_text_could_not_decode_reach_their_record() -> None:
    broken = b'{"n": "\xff"}\n'
    text = io.TextIOWrapper(io.BytesIO(broken), encoding="utf-8", errors="surrogateescape")
    assert OpenSource(text).read(100) == broken


def test_text_to_a_descriptor_that_does_not_block_is_refused() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with (
        open(reading, "rb"),
        open(writing, "w", encoding="utf-8") as file,
        pytest.raises(ConfigurationError, match=r"cannot write .*: its descriptor does not block"),
    ):
        OpenOutput(file)


class Liar:
    """A file that claims to have written less than nothing."""

    def write(self, data: object) -> int:
        return -1


def test_target_that_takes_less_than_nothing_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="cannot write <Liar>: "), OpenOutput(Liar()) as to:
        to.write(LINES)


@pytest.mark.parametrize("given", [5, None, b"in.jsonl", ["in.jsonl"], iter(["{}"])])
def test_what_is_no_file_is_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="the source must be a path or an open file"):
        JsonlSource(given)
    with pytest.raises(ConfigurationError, match="the target must be a path or an open file"):
        OpenOutput(given)


def test_closed_file_is_refused() -> None:
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ConfigurationError, match="the source, <BytesIO>, is a file that is closed"):
        JsonlSource(closed)
    with pytest.raises(ConfigurationError, match="the target, <BytesIO>, is a file that is closed"):
        OpenOutput(closed)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_lines_before_an_error_come_first(tmp_path: Path, chunk_size: int | None) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(LINES)[:-20])
    with gzip.open(path) as file:
        before: list[bytes] = []
        with pytest.raises(EOFError):
            before.extend(file)  # keeps what came before the error
    with gzip.open(path) as file:
        read = b""
        with pytest.raises(ConfigurationError, match=r"cannot read .*: Compressed file ended"):
            for chunk in JsonlSource(file, chunk_size).chunks():
                read += decode_frame(chunk.payload).payload
    assert before
    assert read == b"".join(before)
