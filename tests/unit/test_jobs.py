import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.events import (
    ChunkDelivered,
    ChunkDiscarded,
    ChunkSettled,
    ChunkSubmitted,
    Event,
)
from pyrmute_tasks.engine.job import Job
from pyrmute_tasks.engine.job_report import JobReport, JobState
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.job_tally import JobTally, new_job_id
from pyrmute_tasks.engine.run import Run
from pyrmute_tasks.errors import FrameError, JobError
from pyrmute_tasks.wire.frames import FrameKind, pack


def test_ids_are_short_and_differ() -> None:
    ids = {new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(job) == 8 for job in ids)


def test_spec_round_trips() -> None:
    spec = JobSpec("7f3a21c4", "User", "1.0.0", "3.0.0", FrameKind.LINES, "abc")
    assert JobSpec.from_wire(spec.to_wire()) == spec
    known = replace(spec, total=800_000)
    assert known.to_wire() == spec.to_wire()  # workers need not know
    assert str(spec) == "User 1.0.0→3.0.0 · job 7f3a21c4"
    for damaged in (b"", b"\xff", pack([1, 2]), pack(7), pack(["a", "b", "c", "d", 99, "f"])):
        with pytest.raises(FrameError):
            JobSpec.from_wire(damaged)


@given(st.lists(st.sampled_from(JobState)))
def test_a_job_ends_once(wishes: list[JobState]) -> None:
    state, ends = JobState.PENDING, 0
    for wish in wishes:
        try:
            state = state.to(wish)
        except JobError:
            continue
        ends += state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    assert ends <= 1
    assert state is not JobState.SUCCEEDED or JobState.RUNNING in wishes


def test_a_tally_counts_and_reports() -> None:
    now = 10.0
    tally = JobTally("j", clock=lambda: now)
    tally.begin()
    for event in (
        ChunkSubmitted(0, 0, 5),
        ChunkSubmitted(1, 5, 5),
        ChunkSettled(0, 5, 0.1, "w1", failed=False),
        ChunkSettled(1, 5, 0.0, "", failed=False),  # by an earlier run
        ChunkDelivered(0, 5, 100),
        ChunkDiscarded(1, 5, ran=False),
    ):
        tally(event)
    now = 12.0
    tally.end(JobState.FAILED)
    now = 99.0
    report = tally.report()
    assert (report.records, report.chunks, report.wasted_chunks) == (5, 1, 1)
    assert (report.seconds, report.records_per_s) == (2.0, 2.5)
    assert report.chunks_by_worker == {"w1": 1}
    assert tally.submitted_chunks == 2
    assert tally.delivered_bytes == 100
    with pytest.raises(JobError, match="failed cannot become succeeded"):
        tally.end(JobState.SUCCEEDED)


class NoChunks:
    """A source without chunks, with its executor and its sink."""

    kind = FrameKind.OBJECTS
    total = None
    slots = jobs = 1

    def chunks(self) -> Iterator[Chunk[bytes]]:
        yield from ()

    def __call__(self, event: Event, /) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, chunk: Chunk[bytes], /) -> None: ...

    def collect(self, *, wait: bool) -> Iterable[Outcome[bytes]]:
        return ()

    def cancel(self, first: int) -> None: ...

    def receive(self, chunk: Chunk[None], outcome: Outcome[bytes], /) -> Outcome[bytes]:
        return outcome

    def cut(self, outputs: bytes, count: int, /) -> bytes:
        return outputs


def test_fork_that_drops_a_job_does_not_end_it() -> None:
    ended: list[JobReport] = []
    none = NoChunks()
    with Job(Run("7f3a21c4", on_end=ended.append), none, none, none) as job:
        pid = os.fork()
        if pid == 0:
            job.__exit__(GeneratorExit, None, None)
            os._exit(len(ended))
        assert os.waitpid(pid, 0)[1] == 0
    assert len(ended) == 1
