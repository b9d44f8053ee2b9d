"""What Flower shows of a task that has ended: trouble first, and nothing from a record."""

from dataclasses import replace

import pytest
from celery.utils.saferepr import saferepr

from pyrmute_tasks.distributed.protocol import ClaimState
from pyrmute_tasks.distributed.worker.task_results import TaskResult
from pyrmute_tasks.engine.chunks import Outcome
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.wire.frames import FrameKind

SPEC = JobSpec("2908961f", "Order", "1.0.0", "3.0.0", FrameKind.LINES, "abc")


def outcome(count: int, *failed: int, is_final: bool = False) -> Outcome[bytes]:
    failures = [RecordFailure.of(at, Stage.DECODE, "", ValueError("a secret")) for at in failed]
    placed = tuple(replace(failure, raised_at="orders.py:52 in parse") for failure in failures)
    return Outcome(0, count, b"", placed, is_final=is_final)


def shown(of: Outcome[bytes], seconds: float, **options: object) -> str:
    """Return what Celery puts into its event."""
    result = TaskResult.of(of, seconds, replace(SPEC, **options), "worker")  # type: ignore[arg-type]
    assert [bad.index for bad in result.bad_records] == [each.index for each in of.failures]
    text = saferepr(result)
    assert isinstance(text, str)
    assert "secret" not in text
    return text


def test_a_chunk_that_was_run_tells_counts_and_time() -> None:
    assert shown(outcome(4_907), 1.24) == "4,907 records, 0 failed, 1.2 s"
    assert shown(outcome(1), 0.0032) == "1 record, 0 failed, 3 ms"
    assert shown(outcome(4_907), 61.0, skips=True) == "4,907 records, 0 rejected, 61.0 s"


def test_a_bad_record_comes_first() -> None:
    text = shown(outcome(53, 421_503, is_final=True), 0.5)
    assert text.startswith("✗ bad record 421,503: ValueError · 54 records, 1 failed, 500 ms · ")
    text = shown(outcome(4_904, 421_503, 421_504, 421_600), 1.2, skips=True)
    assert text.startswith(
        "✗ 3 bad records, first 421,503: ValueError · 4,907 records, 3 rejected, 1.2 s · "
    )
    assert "ValueError" in text.rpartition(" · ")[2]


def test_a_bad_record_of_a_range_is_counted_from_the_ranges_first() -> None:
    text = shown(outcome(53, 53, is_final=True), 0.5, kind=FrameKind.RANGES)
    assert text.startswith("✗ bad record 53 of its range: ValueError · 54 records, 1 failed, ")


def test_a_failure_that_ends_a_skipping_job_is_no_reject() -> None:
    text = shown(outcome(0, 0, is_final=True), 0.5, skips=True)
    assert "1 record, 1 failed" in text


def test_a_job_that_cannot_be_read_has_no_bad_records() -> None:
    result = TaskResult.of(outcome(0, 0), 0.0, None, "worker")
    assert (repr(result), result.bad_records) == ("1 record, 1 failed, 0 ms", ())


@pytest.mark.parametrize("state", [each for each in ClaimState if each is not ClaimState.CLAIMED])
def test_a_chunk_that_is_not_wanted_was_not_run(state: ClaimState) -> None:
    assert repr(TaskResult.of_unclaimed(state)).startswith("not run: ")


def test_trouble_is_marked() -> None:
    assert repr(TaskResult.trouble("given up: out of memory")) == "✗ given up: out of memory"
