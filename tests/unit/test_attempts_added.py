"""Attempts are appended to a file whole, or up to the record at which the job ends."""

import hashlib
import os
from pathlib import Path

import pytest

from pyrmute_tasks import ConfigurationError
from pyrmute_tasks.io import copying
from pyrmute_tasks.io.attempt_folder import AttemptFolder
from pyrmute_tasks.io.copying import size_of_lines
from pyrmute_tasks.io.output_file import OutputFile, open_output
from pyrmute_tasks.io.output_parts import OutputParts
from pyrmute_tasks.ranges.frames import Piece

LINES = [b"%d\n" % (10**length) for length in range(8)]
TEXT = b"".join(LINES)


def attempt(folder: AttemptFolder, name: str = "a") -> Piece:
    (folder.path / name).write_bytes(TEXT)
    digest = hashlib.blake2b(TEXT, digest_size=16).hexdigest()
    return Piece(0, 100, name, len(TEXT), len(LINES), len(LINES), len(LINES), digest)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_size_of_the_first_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(copying, "_BLOCK_BYTES", block)
    (tmp_path / "text").write_bytes(TEXT + b"no line")
    descriptor = os.open(tmp_path / "text", os.O_RDONLY)
    try:
        for count in range(len(LINES) + 1):
            assert size_of_lines(descriptor, count) == len(b"".join(LINES[:count]))
        with pytest.raises(OSError, match="was truncated"):
            size_of_lines(descriptor, len(LINES) + 1)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("count", [0, 3, len(LINES)])
def test_only_the_outputs_before_the_end_of_the_job_are_kept(tmp_path: Path, count: int) -> None:
    output = open_output(tmp_path / "out", job="job", keep_partial=True)
    assert isinstance(output, OutputFile)
    with output, AttemptFolder(output.attempts_path) as folder:
        output.add(folder, attempt(folder, "a"))
        output.add(folder, attempt(folder, "b").cut(count))
    assert output.kept_path is not None
    assert output.kept_path.read_bytes() == TEXT + b"".join(LINES[:count])


def test_attempt_that_is_cut_must_still_be_what_its_worker_wrote(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out", job="job")
    assert isinstance(output, OutputFile)
    with output, AttemptFolder(output.attempts_path) as folder:
        piece = attempt(folder)
        (folder.path / piece.attempt).write_bytes(TEXT[:-1])
        with pytest.raises(ConfigurationError, match="is not what its worker wrote"):
            output.add(folder, piece.cut(2))


def test_folder_of_parts_takes_no_part_of_an_attempt(tmp_path: Path) -> None:
    output = OutputParts(f"{tmp_path}/out/", "job")
    with output, AttemptFolder(output.attempts_path) as folder:
        output.add(folder, attempt(folder).cut(2))
        assert (folder.path / "a").exists()
    assert list(tmp_path.iterdir()) == []
