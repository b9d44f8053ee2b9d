"""What Flower shows of a task: where its records stand, before whose they are."""

import pytest

from pyrmute_tasks.distributed.producer.task_labels import TaskLabels
from pyrmute_tasks.engine.chunks import Chunk, Origin
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.record_source import RecordSource
from pyrmute_tasks.wire.frames import Compression, FrameKind

JOB = "Order 1.0.0→3.0.0 · job 2908961f"
MIB = 1024**2


def label(total: int | None, chunk: Chunk[None]) -> str:
    spec = JobSpec("2908961f", "Order", "1.0.0", "3.0.0", FrameKind.OBJECTS, "abc", total=total)
    place, _, job = TaskLabels(spec)(chunk).partition(f" · {JOB}")
    assert job == ""
    return place


def test_records_are_counted_to_their_number_if_that_is_known() -> None:
    chunk = Chunk(86, 421_450, 4_907, None)
    assert label(800_000, chunk) == "records 421,450–426,356 of 800,000"
    assert label(None, chunk) == "records 421,450–426,356"


@pytest.mark.parametrize(
    ("total", "end_byte", "where"),
    [
        (None, 5_000, ""),  # of a pipe
        (812 * MIB, 424 * MIB, " · 52% of 812.0 MiB"),
        (10_000, 9_999, " · 99% of 10,000 bytes"),
        (10_000, 10_000, " · 100% of 10,000 bytes"),
        (0, 0, " · 0% of 0 bytes"),
    ],
)
def test_records_of_a_file_tell_how_much_of_it_they_end(
    total: int | None, end_byte: int, where: str
) -> None:
    chunk = Chunk(0, 4_907, 93, None, origin=Origin("in.jsonl", 1, end_byte=end_byte))
    assert label(total, chunk) == f"records 4,907–4,999{where}"


@pytest.mark.parametrize(
    ("total", "start", "count", "place"),
    [
        (900_000, 65_536, 65_536, "bytes 65,536–131,071 of 900,000"),
        (5 * MIB, 4 * MIB, MIB, "bytes 4.00–5.00 of 5.00 MiB"),
        (812 * MIB, 4_404_020, 1_153_434, "bytes 4.2–5.3 of 812.0 MiB"),
        (
            3_200 * 1024 * MIB,
            1_234 * 1024 * MIB,
            64 * MIB,
            "bytes 1,234.00–1,234.06 of 3,200.00 GiB",
        ),
        (None, 65_536, 65_536, "bytes 65,536–131,071"),
    ],
)
def test_ranges_tell_their_bytes(total: int | None, start: int, count: int, place: str) -> None:
    assert label(total, Chunk(0, start, count, None, is_range=True)) == place


class Loader:
    """Has a length, which is that of its batches."""

    def __len__(self) -> int:
        raise AssertionError

    def __iter__(self) -> "Loader":
        return self

    def __next__(self) -> object:
        raise StopIteration


@pytest.mark.parametrize(
    ("records", "total"),
    [
        ([{}, {}], 2),
        (({}, {}, {}), 3),
        (iter([{}]), None),
        (map(dict, [{}]), None),
        (Loader(), None),
    ],
)
def test_only_collections_tell_how_many_records_they_hold(records: object, total: object) -> None:
    source = RecordSource(records, None, MIB, Compression.NONE)  # type: ignore[arg-type]  # any
    assert source.total == total
    source.close()
