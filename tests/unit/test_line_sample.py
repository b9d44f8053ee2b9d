"""Lines sampled by byte offsets: which ones, and what they tell of the whole file."""

import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.io import line_sample
from pyrmute_tasks.io.line_sample import SampledLine, sample_files, sample_stream

LINES = st.sampled_from([b'{"a":1}', b'{"bbbbbbbbbbbbbbbbbbb":2} ', b"", b"  ", b"\t\r", b"no"])


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def all_lines(names: list[str]) -> list[SampledLine]:
    """Every line that is not blank, read in the simplest way."""
    found = []
    for name in names:
        offset = 0
        for number, text in enumerate(io.BytesIO(Path(name).read_bytes()), 1):
            kept = text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text
            if kept.strip():
                found.append(SampledLine(name, offset + len(text) - len(kept), number, kept))
            offset += len(text)
    return found


@given(
    files=st.lists(st.tuples(st.lists(LINES, max_size=25), st.booleans()), min_size=1, max_size=3),
    count=st.integers(1, 30),
)
@settings(deadline=None)
def test_sample_is_the_first_the_last_and_some_between(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[list[bytes], bool]], count: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    names = [
        write(
            folder / f"{number}.jsonl", b"\xef\xbb\xbf" * number + b"\n".join(lines) + b"\n" * ends
        )
        for number, (lines, ends) in enumerate(files)
        if number < 2 or lines
    ]
    expected = all_lines(names)
    sample = sample_files(names, count)
    assert sample.size_bytes == sum(Path(name).stat().st_size for name in names)
    assert sample.is_whole == (len(expected) <= count)
    if sample.is_whole:
        assert (list(sample.lines), sample.records) == (expected, len(expected))
        return
    by_place = {(line.file, line.offset): number for number, line in enumerate(expected)}
    taken = [by_place[line.file, line.offset] for line in sample.lines]
    assert [line.text for line in sample.lines] == [expected[number].text for number in taken]
    assert all(
        line.number in (0, expected[n].number) for line, n in zip(sample.lines, taken, strict=False)
    )
    assert taken == sorted(set(taken))
    assert len(taken) <= count
    third = count // 3
    assert taken[: count - 2 * third] == list(range(count - 2 * third))
    assert not third or taken[-third:] == list(range(len(expected) - third, len(expected)))
    assert sample.records is not None
    assert sample.records >= len(taken)


@pytest.mark.parametrize("block", [1, 7, 64 * 1024])
def test_lines_between_are_evenly_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(line_sample, "_BLOCK_BYTES", block)
    name = write(tmp_path / "in.jsonl", b"".join(b'{"a": %04d}\n' % n for n in range(1000)))
    numbers = [
        json.loads(line.text.replace(b" 0", b" 1"))["a"] for line in sample_files([name], 30).lines
    ]
    assert len(numbers) == 30
    between = [line.offset // 12 for line in sample_files([name], 30).lines[10:20]]
    steps = {later - earlier for earlier, later in itertools.pairwise(between)}
    assert steps <= {97, 98, 99}


def test_number_of_records_is_right_although_long_lines_are_met_more_often(tmp_path: Path) -> None:
    long, short = b'"%s"\n' % (b"x" * 9997), b'"x"\n'
    name = write(tmp_path / "in.jsonl", (long + short) * 300)
    records = sample_files([name], 300).records
    assert records is not None
    assert 300 <= records <= 1200  # and not 600,000 bytes / 4, nor all bytes / 10,000 only


def test_sample_of_long_lines_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_sample, "_MOST_BYTES", 1000)
    name = write(tmp_path / "in.jsonl", (b"x" * 499 + b"\n") * 100)
    sample = sample_files([name], 90)
    assert len(sample.lines) <= 6
    assert not sample.is_whole
    assert sample.records == 100
    assert len(sample_stream(io.BytesIO(Path(name).read_bytes()), "-", 90).lines) == 2


def test_pipe_gives_its_first_lines(tmp_path: Path) -> None:
    text = b"".join(b"%d\n" % n for n in range(50))
    sample = sample_stream(io.BytesIO(text), "stdin", 10)
    assert [line.text for line in sample.lines] == [b"%d\n" % n for n in range(10)]
    assert (sample.size_bytes, sample.records, sample.is_whole) == (None, None, False)
    assert sample.lines[9].place == "stdin, line 10"
    whole = sample_stream(io.BytesIO(text), "stdin", 50)
    assert (whole.records, whole.is_whole) == (50, True)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*gone\.jsonl: No such file"):
        sample_files([str(tmp_path / "gone.jsonl")], 10)
