"""Ranges settled in any order, without a fleet: they run here, and processes die in forks."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import pytest

from pyrmute_tasks.distributed.worker.range_runner import RangeRunner
from pyrmute_tasks.engine import chunk_sizes
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ErrorPolicy, FailureJudge
from pyrmute_tasks.engine.pipeline import ChunkResult, Window, run_ordered
from pyrmute_tasks.errors import JobExistsError, ProofError
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.earlier_runs import LogOptions, kept_job
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.job_targets import FileTarget, JobTarget, PartsTarget, is_parts
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.range_feed import RangeFeed
from pyrmute_tasks.io.range_source import RangeSink, RangeSource
from pyrmute_tasks.io.rejects import RejectsFile
from pyrmute_tasks.jobs import log as job_log
from pyrmute_tasks.jobs.fold import Span
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.ranges.frames import Piece
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.wire.frames import Frame, decode_frame
from tests.people import broken_step, manager, person

PLAN: Final = manager.plan("Person", "1.0.0", "3.0.0")
SKIP: Final = ErrorPolicy.skip()
RAISE: Final = ErrorPolicy()
BEGIN: Final = LogOptions()
RESUME: Final = LogOptions(resume=True)
RECORDS: Final = 300


class Here:
    """Runs ranges in this process when they are asked for, in random order.

    Args:
        root: What it may read and write.
        seed: Of the order.
        die_after: Ranges after which the process ends as if killed.
    """

    slots, jobs = 3, 1

    def __init__(self, root: Path, seed: int, die_after: int, *, skips: bool) -> None:
        self._runner = RangeRunner(Roots([str(root)]))
        self._random = Random(seed)
        self._pending: list[Chunk[bytes]] = []
        self._left = die_after
        self._skips = skips
        self.ran: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Nothing runs."""

    def submit(self, chunk: Chunk[bytes], /) -> None:
        self._pending.append(chunk)

    def collect(self, *, wait: bool) -> list[Outcome[Frame]]:
        if not self._pending or not wait:
            return []
        if not self._left:
            os._exit(9)
        self._left -= 1
        chunk = self._pending.pop(self._random.randrange(len(self._pending)))
        inputs = decode_frame(chunk.payload)
        frame, count, failures = self._runner.run(PLAN, "0", inputs, skips=self._skips)
        self.ran.append((chunk.start, chunk.count))
        found = tuple(failures.found)
        outputs = decode_frame(frame)
        return [Outcome(chunk.index, count, outputs, found, is_final=failures.ended, worker="w")]

    def cancel(self, first: int) -> None:
        self._pending = [chunk for chunk in self._pending if chunk.index < first]


@dataclass
class Place:
    """The files of a run."""

    sources: list[Path]
    target: str
    rejects: Path
    told: list[ChunkResult[Any]] = field(default_factory=list)
    ran: list[tuple[int, int]] = field(default_factory=list)

    def run(
        self,
        options: LogOptions = BEGIN,
        policy: ErrorPolicy = SKIP,
        *,
        die_after: int = -1,
        seed: int = 0,
        keep_partial: bool = False,
    ) -> JobOutput:
        spec = Spec(
            "job",
            tuple(map(SourceFile.of, self.sources)),
            self.target,
            ("Person", "1.0.0", "3.0.0"),
            PLAN.fingerprint,
        )
        output = JobOutput(self._target(), spec, options, keep_partial=keep_partial)
        rejects = RejectsFile(self.rejects, job="job", source=self.sources[0])
        judge = FailureJudge(policy)
        with output, rejects:
            folder = output.folder
            source = RangeSource(
                map(str, self.sources),
                folder.parts_path,
                folder.nonce,
                1_000_000,
                skips=policy.skips,
                settled=output.restored(),
            )
            here = Here(self.rejects.parent, seed, die_after, skips=policy.skips)
            feed = RangeFeed(output, source, skips=policy.skips).over(here)
            results = run_ordered(
                source.chunks(),
                feed,
                lambda: Window(4),
                sink=RangeSink(HookSet()),
                policy=policy,
                judge=judge,
            )
            failed = False
            for result in results:
                feed.deliver(result)
                rejects.write(result.rejects)
                self.told.append(result)
                failed = result.failure is not None
            self.ran = here.ran
            rejects.commit()
            if not failed:
                output.commit()
        return output

    def _target(self) -> JobTarget:
        if is_parts(self.target):
            return PartsTarget.of(self.target, map(str, self.sources))
        return FileTarget(self.target, check_output(self.target))

    def die(self, options: LogOptions = BEGIN, policy: ErrorPolicy = SKIP, **how: Any) -> None:
        """Run until the process dies as if it had been killed."""
        child = os.fork()
        if not child:
            try:
                self.run(options, policy, **how)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    @property
    def written(self) -> bytes:
        """The output, of parts all of them in order."""
        path = Path(self.target)
        if path.is_file():
            return path.read_bytes()
        manifest = json.loads((path / "_manifest.json").read_bytes())
        return b"".join((path / part["name"]).read_bytes() for part in manifest["parts"])

    @property
    def spans(self) -> Iterator[Span]:
        return JobFolder(self.job).view().fold.spans()

    @property
    def job(self) -> Path:
        return beside(Path(self.target.rstrip("/")))


def lines(bad: set[int], last: int) -> tuple[str, bytes]:
    """Return the lines of a source and of its outputs."""
    source, outputs = "", b""
    for number in range(RECORDS):
        record = broken_step(number) if number in bad else person(number)
        source += json.dumps(record) + "\n" * (1 + (number % 5 == last))
        if number not in bad:
            migrated = manager.migrate(record, "Person", "1.0.0", "3.0.0")
            outputs += migrated.model_dump_json().encode() + b"\n"
    return source, outputs


@pytest.fixture(params=["out.jsonl", "out/"])
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    monkeypatch.setattr(job_log, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(chunk_sizes, "_FIRST_RANGE_BYTES", 1500)
    monkeypatch.setattr(chunk_sizes, "_MOST_RANGE_BYTES", 1500)
    monkeypatch.setattr(chunk_sizes, "_LEAST_RANGE_BYTES", 1500)
    folder = tmp_path / "in"
    folder.mkdir()
    sources = [folder / "a.jsonl", folder / "b.jsonl"]
    for path in sources:
        path.write_text(lines(BAD, 2)[0])
    return Place(sources, f"{tmp_path}/{request.param}", tmp_path / "bad.jsonl")


BAD: Final = {7, 8, 150, 299}
GOOD: Final = lines(BAD, 2)[1]


def rejects_of(place: Place) -> list[tuple[int, str, int]]:
    found = [json.loads(line) for line in place.rejects.read_text().splitlines()]
    for each in found:
        text = Path(each["file"]).read_text().splitlines()[each["line"] - 1]
        assert json.loads(text) == broken_step(each["index"] % RECORDS)
    return [(each["index"], Path(each["file"]).name, each["line"]) for each in found]


def test_outputs_and_rejects_equal_a_loop(place: Place) -> None:
    place.run()
    assert place.written == GOOD * 2
    found = rejects_of(place)
    assert [index for index, _, _ in found] == sorted(BAD) + [RECORDS + bad for bad in sorted(BAD)]
    assert len({(name, line) for _, name, line in found}) == len(found)
    assert not place.job.exists()


@pytest.mark.parametrize("seed", range(6))
def test_run_killed_at_any_range_goes_on_with_what_is_missing(place: Place, seed: int) -> None:
    whole = Place(place.sources, f"{place.rejects.parent}/whole", place.rejects.with_name("all"))
    whole.run()
    options, settled, kills = BEGIN, 0, Random(seed)
    for kill in range(3):
        place.die(options, die_after=kills.randrange(1, 5), seed=seed * 10 + kill)
        options = RESUME
        now = sum(span.range.end - span.range.start for span in place.spans)
        assert now > settled
        settled = now
    place.run(RESUME, seed=seed)
    assert place.written == whole.written == GOOD * 2
    assert place.rejects.read_bytes() == whole.rejects.read_bytes()
    size = sum(path.stat().st_size for path in place.sources)
    assert sum(count for _, count in place.ran) == size - settled  # nothing is done again
    assert not place.job.exists()


def test_log_that_is_found_needs_a_word(place: Place) -> None:
    place.die(die_after=3)
    with pytest.raises(JobExistsError, match="--resume goes on with it"):
        place.run()
    place.run(LogOptions(restart=True))
    assert place.written == GOOD * 2


def test_limit_of_rejects_counts_those_of_earlier_runs(place: Place) -> None:
    policy = ErrorPolicy.skip(max_errors=2)
    place.die(policy=policy, die_after=3, seed=3)
    place.run(RESUME, policy, seed=4)
    failure = place.told[-1].failure
    assert failure is not None
    assert failure.index == 150
    assert kept_job(place.target) is not None
    assert not Path(place.target).exists()


@pytest.mark.parametrize("dies", [False, True])
def test_record_that_fails_ends_the_job_and_is_named_after_resuming(
    place: Place, dies: bool
) -> None:
    if dies:
        place.die(policy=RAISE, die_after=1, seed=1)
    output = place.run(RESUME if dies else BEGIN, RAISE, keep_partial=place.target[-1] != "/")
    failure = place.told[-1].failure
    assert failure is not None
    assert failure.index == 7
    assert failure.source == f"{place.sources[0]}, line 9"
    assert not Path(place.target).exists()
    if place.target.endswith("/"):
        assert output.kept_path is None
    else:
        assert output.kept_path is not None
        assert output.kept_path.read_bytes() == b"".join(GOOD.splitlines(keepends=True)[:7])


def test_mended_step_goes_on_behind_the_failure(place: Place) -> None:
    place.run(LogOptions(resume=True), RAISE, seed=5)
    settled = sum(span.range.end - span.range.start for span in place.spans)
    assert settled
    place.run(RESUME, SKIP)
    assert place.written == GOOD * 2
    size = sum(path.stat().st_size for path in place.sources)
    assert sum(count for _, count in place.ran) == size - settled


def test_run_without_a_log_leaves_nothing(place: Place) -> None:
    place.run(LogOptions(log=False), RAISE)
    assert not place.job.exists()
    place.run(LogOptions(log=False))
    assert place.written == GOOD * 2


def test_attempt_that_changed_is_not_published(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = RangeFeed.deliver

    def cut_and_deliver(feed: RangeFeed, result: ChunkResult[Sequence[Piece]]) -> None:
        for piece in result.outputs:
            if piece.attempt:
                path = place.job / "parts" / piece.attempt
                path.write_bytes(path.read_bytes()[:-1])
        deliver(feed, result)

    monkeypatch.setattr(RangeFeed, "deliver", cut_and_deliver)
    with pytest.raises(ProofError, match=r"not what was written|lacks outputs"):
        place.run()
    assert not Path(place.target).exists()


def test_attempts_of_earlier_runs_are_compared(place: Place) -> None:
    place.die(die_after=6)
    attempt = next(path for path in (place.job / "parts").iterdir() if path.name != "nonce")
    attempt.write_bytes(attempt.read_bytes().upper())
    if place.target.endswith("/"):  # parts are not read before somebody verifies them
        place.run(RESUME)
        return
    with pytest.raises(ProofError, match="not the outputs of file"):
        place.run(RESUME)


@pytest.mark.parametrize("place", ["out/"], indirect=True)
def test_folder_of_parts_has_a_manifest_and_is_replaced(place: Place) -> None:
    place.run()
    manifest = json.loads((Path(place.target) / "_manifest.json").read_bytes())
    assert manifest["records"] == 2 * (RECORDS - len(BAD))
    assert len(manifest["parts"]) > 10
    again = Place(place.sources, place.target, place.rejects)
    again.run()  # a folder with a manifest is replaced
    assert again.written == GOOD * 2
    assert sorted(path.name for path in place.rejects.parent.iterdir()) == [
        "bad.jsonl",
        "in",
        "out",
    ]
