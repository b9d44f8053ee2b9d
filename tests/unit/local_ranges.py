"""Runs by reference without a fleet: ranges run here, and processes die in forks."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from pyrmute_tasks.distributed.worker.range_runner import RangeRunner
from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ErrorPolicy, FailureJudge
from pyrmute_tasks.engine.pipeline import ChunkResult, run_ordered
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io.earlier_runs import LogOptions
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.job_targets import FileTarget, JobTarget, PartsTarget, is_parts
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.range_feed import RangeFeed
from pyrmute_tasks.io.range_source import RangeSink, RangeSource
from pyrmute_tasks.io.rejects import RejectsFile
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.jobs.entries import Range
from pyrmute_tasks.jobs.fold import Span
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.lease import Lease
from pyrmute_tasks.jobs.publish_parts import PartsPublication
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.ranges.roots import Roots
from pyrmute_tasks.wire.frames import Frame, decode_frame
from tests.people import broken_step, manager, person

PLAN: Final = manager.plan("Person", "1.0.0", "3.0.0")
SKIP: Final = ErrorPolicy.skip()
RAISE: Final = ErrorPolicy()
BEGIN: Final = LogOptions()
RESUME: Final = LogOptions(resume=True)
RECORDS: Final = 300
_APPEAR: Final = PartsPublication.appear


class Here:
    """Runs ranges in this process when they are asked for, in random order.

    Args:
        plan: The migration.
        root: What it may read and write.
        seed: Of the order.
        die_after: Ranges after which the process ends as if killed.
    """

    slots, jobs = 3, 1

    def __init__(
        self, plan: MigrationPlan, root: Path, seed: int, die_after: int, *, skips: bool
    ) -> None:
        self._plan = plan
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
        frame, count, failures = self._runner.run(self._plan, "0", inputs, skips=self._skips)
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
    plan: MigrationPlan = PLAN
    only: tuple[Range, ...] = ()
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
        retried: RetriedJob | None = None,
    ) -> JobOutput:
        spec = Spec(
            "job" if retried is None else "retry",
            tuple(map(SourceFile.of, self.sources)),
            self.target,
            ("Person", "1.0.0", "3.0.0"),
            self.plan.fingerprint,
            is_parts=is_parts(self.target),
            only=self.only,
            parents=() if retried is None else retried.folder.spec.lineage,
        )
        output = JobOutput(
            self._target(), spec, options, keep_partial=keep_partial, retried=retried
        )
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
                wanted=folder.spec.wanted,
                settled=output.restored(),
            )
            here = Here(self.plan, self.rejects.parent, seed, die_after, skips=policy.skips)
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
    def is_finished(self) -> bool:
        """Whether of the job nothing is left but what tells of its rejects."""
        if not self.job.exists():
            return True
        names = {each.name.split(".")[0] for each in self.job.iterdir()}
        return JobFolder(self.job).has_succeeded() and names == {"spec", "log", "rejects"}

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


BAD: Final = {7, 8, 150, 299}
GOOD: Final = lines(BAD, 2)[1]


def die_halfway(publication: PartsPublication, lease: Lease, **how: Any) -> None:
    """Die between the two renames that replace a folder of parts; for a fork."""

    def die(path: Path, new: Path) -> Path:
        os.rename(path, new)
        os._exit(9)

    Path.rename = die  # type: ignore[method-assign,assignment]  # this process has no later call
    _APPEAR(publication, lease, **how)
