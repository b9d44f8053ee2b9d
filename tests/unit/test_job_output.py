"""Outputs with a log, without a fleet: lines are migrated here, and processes die in forks."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.engine.error_policy import ErrorPolicy, FailureJudge
from pyrmute_tasks.engine.pipeline import ChunkResult, run_ordered
from pyrmute_tasks.engine.window import Window
from pyrmute_tasks.errors import (
    ConfigurationError,
    JobChangedError,
    JobError,
    JobExistsError,
    JobLogError,
    JobNotFoundError,
    OutputInUseError,
    ProofError,
)
from pyrmute_tasks.failures import RecordFailure, Stage
from pyrmute_tasks.hooks import HookSet
from pyrmute_tasks.io import job_output, passing_faults
from pyrmute_tasks.io.earlier_runs import LogOptions, kept_job
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.job_targets import FileTarget
from pyrmute_tasks.io.jsonl import JsonlSink, JsonlSource, size_of_records
from pyrmute_tasks.io.kept_jobs import publish_job, verify_job
from pyrmute_tasks.io.line_feed import LineFeed
from pyrmute_tasks.io.output_place import check_output
from pyrmute_tasks.io.rejects import RejectsFile
from pyrmute_tasks.jobs import log as job_log
from pyrmute_tasks.jobs import publish_file
from pyrmute_tasks.jobs.entries import Range, Settled
from pyrmute_tasks.jobs.folder import JobFolder, beside
from pyrmute_tasks.jobs.output import Output, digest_of
from pyrmute_tasks.jobs.publish_file import FilePublication
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.plans.plan import MigrationPlan
from pyrmute_tasks.wire.frames import Frame, decode_frame
from tests.people import manager

LINES: Final = 40
SKIP: Final = ErrorPolicy.skip()
RESUME: Final = LogOptions(resume=True)
BEGIN: Final = LogOptions()


class UpperCase:
    """Executes chunks at once: lines in capitals; those with "bad" fail."""

    def __init__(self, skips: bool) -> None:
        self._skips = skips
        self._done: list[Outcome[Frame]] = []

    def submit(self, chunk: Chunk[bytes], /) -> None:
        frame = decode_frame(chunk.payload)
        outputs: list[bytes] = []
        failures: list[RecordFailure] = []
        for at, line in enumerate(bytes(frame.payload).splitlines(keepends=True)):
            if b"bad" not in line:
                outputs.append(line.upper())
                continue
            failures.append(
                RecordFailure.of(chunk.start + at, Stage.STEP, "1 → 2", ValueError("b"))
            )
            if not self._skips:
                break
        data = Frame(frame.kind, len(outputs), b"".join(outputs))
        self._done.append(Outcome(chunk.index, len(outputs), data, tuple(failures)))

    def collect(self, *, wait: bool) -> list[Outcome[Frame]]:
        done, self._done = self._done, []
        return done

    def cancel(self, first: int) -> None:
        """Nothing runs."""


@dataclass
class Place:
    """The files of a run, and what its plan is."""

    source: Path
    target: Path
    rejects: Path
    plan: MigrationPlan
    code: str = "code"
    told: list[ChunkResult[Frame]] = field(default_factory=list)

    def run(
        self,
        options: LogOptions = BEGIN,
        *,
        policy: ErrorPolicy = SKIP,
        die_after: int = -1,
        overwrite: bool = False,
        keep_partial: bool = False,
        option: str = "",
        limit: int | None = None,
        hold: bool = False,
        backup: bool = False,
    ) -> JobOutput:
        lines = JsonlSource(self.source, 3, limit=limit)
        output = JobOutput(
            FileTarget(self.target, check_output(self.target)),
            self.spec(option, limit),
            options,
            overwrite=overwrite,
            keep_partial=keep_partial,
            hold=hold,
            backup=backup,
        )
        rejects = RejectsFile(
            self.rejects,
            job="job",
            source=self.source,
            overwrite=output.has_told_rejects or overwrite,
        )
        judge = FailureJudge(policy)
        with output, rejects:
            restored = [
                failure
                for each in output.restored()
                for failure in each.located(
                    f"{self.source.parent}/./{self.source.name}", with_text=False
                )
            ]
            rejects.write(restored)
            judge.restore(len(restored), 0)
            self._write(output, rejects, lines, judge, policy, die_after)
        return output

    def spec(self, option: str = "", limit: int | None = None) -> Spec:
        return Spec(
            "job",
            (SourceFile.of(self.source),),
            str(self.target),
            (self.plan.name, str(self.plan.from_version), str(self.plan.to_version)),
            self.code,
            options={"option": option, "limit": limit},
            only=() if limit is None else (Range(0, 0, size_of_records(self.source, limit)),),
        )

    def _write(
        self,
        output: JobOutput,
        rejects: RejectsFile,
        lines: JsonlSource,
        judge: FailureJudge,
        policy: ErrorPolicy,
        die_after: int,
    ) -> None:
        feed = LineFeed(output, lines)
        chunks = lines.chunks()
        assert isinstance(chunks, Iterator)
        failed = False
        results = run_ordered(
            chunks,
            UpperCase(policy.skips),
            lambda: Window(2),
            sink=JsonlSink(HookSet()),
            policy=policy,
            judge=judge,
        )
        for number, result in enumerate(results):
            if number == die_after:
                os._exit(9)
            self.told.append(result)
            rejects.write(result.rejects)
            feed.deliver(result)
            failed = result.failure is not None
        output.note_rejects()
        rejects.commit()
        if not failed:
            feed.finish()
            output.commit()

    def die(self, options: LogOptions = BEGIN, after: int = 4, **how: Any) -> None:
        """Run until a process dies as if it had been killed."""
        child = os.fork()
        if not child:
            try:
                self.run(options, die_after=after, **how)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    @property
    def beside(self) -> list[str]:
        """What there is but for the source, and for jobs of which only the rejects are left."""
        found = {each for each in self.source.parent.iterdir() if not tells_of_rejects(each)}
        return sorted(each.name for each in found - {self.source})


def tells_of_rejects(path: Path) -> bool:
    """Whether a folder is a job that was published with rejects, and its outputs are gone."""
    if not path.is_dir() or not JobFolder(path).has_succeeded():
        return False
    names = {each.name.split(".")[0] for each in path.iterdir()}
    return names == {"spec", "log", "rejects"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(job_log, "COMMIT_EVERY_S", 0.0)
    source = tmp_path / "in.jsonl"
    write_source(source)
    plan = manager.plan("Person", "1.0.0", "3.0.0")
    return Place(source, tmp_path / "out.jsonl", tmp_path / "bad.jsonl", plan)


def write_source(path: Path, bad: range | tuple[int, ...] = range(5, LINES, 7)) -> None:
    text = "".join(
        f'{{"line": {at}{", bad" if at in bad else ""}}}\n' + "\n" * (at % 4 == 1)
        for at in range(LINES)
    )
    path.write_text("\ufeff\n" + text + "\n \n")


def expected(place: Place) -> str:
    lines = place.source.read_text().removeprefix("\ufeff").splitlines()
    return "".join(line.upper() + "\n" for line in lines if line.strip() and "bad" not in line)


def test_output_written_in_one_go_is_not_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(Output, "compare", compare)
    place.run()
    assert place.target.read_text() == expected(place)
    assert place.target.stat().st_nlink == 1
    assert place.beside == ["bad.jsonl", "out.jsonl"]


@pytest.mark.parametrize("after", [0, 1, 5, 13])
def test_run_resumes_where_it_was_killed(place: Place, tmp_path: Path, after: int) -> None:
    whole = replace(place, target=tmp_path / "whole", rejects=tmp_path / "whole.bad", told=[])
    whole.run()
    place.die(after=after)
    assert beside(place.target).is_dir()
    output = place.run(RESUME)
    assert place.target.read_bytes() == whole.target.read_bytes()
    assert place.rejects.read_bytes() == whole.rejects.read_bytes()
    assert [result.chunk.start for result in whole.told][after] == place.told[0].chunk.start
    assert output.kept_path is None
    assert place.beside == ["bad.jsonl", "out.jsonl", "whole", "whole.bad"]


def test_run_resumes_after_every_chunk(place: Place) -> None:
    place.die(after=1)
    for _ in range(11):
        place.die(RESUME, after=1)
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert len(place.rejects.read_text().splitlines()) == 5


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 100, 101, 102, 103, 600, -8, -6, -1])
def test_run_goes_on_behind_a_range_that_ends_inside_a_line(place: Place, cut: int) -> None:
    write_source(place.source, ())
    text = place.source.read_bytes()
    cut %= len(text)
    # A range is the lines that begin in it; the byte order mark belongs to the first one.
    starts = [0] + [at + 1 for at, byte in enumerate(text[:-1]) if byte == ord("\n")]
    begun = [
        text[start:].removeprefix(b"\xef\xbb\xbf").split(b"\n")[0]
        for start in starts
        if start < cut
    ]
    records = [line.upper() + b"\n" for line in begun if line.strip()]
    data = b"".join(records)
    target = FileTarget(place.target, check_output(place.target))
    with JobOutput(target, place.spec(), RESUME) as output:
        put = output.log.put(data) if data else None
        counts = (len(records), len(records), 0)
        digest = digest_of(data) if data else ""
        output.settle(Settled(0, 0, cut, *counts, put, digest, lines=len(begun)), b"")
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert [result.chunk.start for result in place.told[:1]] in ([], [len(records)])


@pytest.mark.parametrize("limit", [1, 17, LINES, LINES + 1])
@pytest.mark.parametrize("after", [0, 2, 5])
def test_run_of_the_first_records_goes_on(place: Place, limit: int, after: int) -> None:
    lines = place.source.read_text().removeprefix("\ufeff").splitlines(keepends=True)
    first = [line for line in lines if line.strip()][:limit]
    if after < len(first) // 3:
        place.die(after=after, limit=limit)
        with pytest.raises(JobChangedError, match=f"limit was {limit}, and is not set"):
            place.run(RESUME)
    place.run(RESUME, limit=limit)
    kept = [line.upper() for line in first if "bad" not in line]
    assert place.target.read_text() == "".join(kept)
    assert len(place.rejects.read_text().splitlines()) == len(first) - len(kept)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_rejects_of_the_whole_job_are_limited(place: Place) -> None:
    policy = ErrorPolicy.skip(max_errors=3)
    place.die(after=6, policy=policy)
    place.run(RESUME, policy=policy)
    failure = place.told[-1].failure
    assert failure is not None
    assert failure.index == 5 + 7 * 3
    assert "more than 3 records" in place.told[-1].exceeded
    assert not place.target.exists()


def test_failure_after_resuming_names_its_record_and_line(place: Place, tmp_path: Path) -> None:
    write_source(place.source, (33,))
    whole = replace(place, target=tmp_path / "whole", rejects=tmp_path / "whole.bad", told=[])
    whole.run(policy=ErrorPolicy())
    place.die(after=6, policy=ErrorPolicy())
    place.run(RESUME, policy=ErrorPolicy(), overwrite=True)
    want, got = whole.told[-1].failure, place.told[-1].failure
    assert want is not None
    assert got is not None
    assert (got.index, got.source) == (want.index, want.source)
    line = place.source.read_text().splitlines()[int(got.source.rpartition(" ")[2]) - 1]
    assert '"line": 33,' in line


def test_log_that_is_found_needs_a_word(place: Place) -> None:
    place.die()
    with pytest.raises(JobExistsError, match="--resume goes on with it, --restart begins again"):
        place.run()
    place.run(LogOptions(restart=True))
    assert place.told[0].chunk.start == 0
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_resuming_without_a_log_begins(place: Place) -> None:
    assert kept_job(place.target) is None
    place.run(RESUME)
    assert place.target.read_text() == expected(place)


def touch(place: Place) -> None:
    os.utime(place.source, ns=(1, 1))


def append(place: Place) -> None:
    with place.source.open("a") as file:
        file.write("{}\n")


def other_plan(place: Place) -> None:
    place.plan = manager.plan("Person", "2.0.0", "3.0.0")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (touch, "in.jsonl has been written since"),
        (append, r"had \d+ bytes, and has \d+"),
        (other_plan, "the plan was Person 1.0.0 3.0.0, and is Person 2.0.0 3.0.0"),
    ],
)
def test_other_source_or_plan_is_refused(
    place: Place, change: Callable[[Place], None], told: str
) -> None:
    place.die()
    change(place)
    with pytest.raises(JobChangedError, match=told):
        place.run(LogOptions(resume=True))
    assert JobFolder(beside(place.target)).view().epoch == 1


def test_other_options_are_refused(place: Place) -> None:
    place.die(option="a")
    with pytest.raises(JobChangedError, match="option was a, and is b"):
        place.run(RESUME, option="b")


def test_other_code_is_refused_unless_accepted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.die()
    place.code = "other"
    with pytest.raises(JobChangedError, match=r"the code of models or steps has changed.*accept-c"):
        place.run(RESUME)
    monkeypatch.setattr(Output, "compare", lambda *_: None)
    place.run(LogOptions(resume=True, accept_code=True))
    assert place.target.read_text() == expected(place)


@pytest.mark.parametrize("write", [touch, append])
def test_output_of_a_source_that_changed_is_not_published(
    place: Place, monkeypatch: pytest.MonkeyPatch, write: Callable[[Place], None]
) -> None:
    deliver = LineFeed.deliver

    def deliver_and_write(*arguments: Any) -> None:
        deliver(*arguments)
        write(place)

    monkeypatch.setattr(LineFeed, "deliver", deliver_and_write)
    with pytest.raises(JobChangedError, match=r"changed while it was read: .*in\.jsonl ha"):
        place.run()
    assert not place.target.exists()


@pytest.mark.parametrize("seconds", [0.0, 11.0])
@pytest.mark.parametrize("resumes", [False, True])
def test_failed_run_is_kept_if_it_ran_long(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float, resumes: bool
) -> None:
    monkeypatch.setattr(job_output, "_WORTH_KEEPING_S", 10.0 - seconds)
    place.run(LogOptions(resume=resumes), policy=ErrorPolicy())
    kept = seconds > 10 or resumes
    assert (kept_job(place.target) is not None) == kept
    assert not place.target.exists()


@pytest.mark.parametrize("dies", [False, True])
def test_partial_output_is_kept(place: Place, dies: bool) -> None:
    write_source(place.source, (25,))
    if dies:
        place.die(after=3, policy=ErrorPolicy())
    options = RESUME if dies else LogOptions()
    output = place.run(options, policy=ErrorPolicy(), keep_partial=True)
    assert output.kept_path == place.target.with_name("out.jsonl.partial")
    good = [f'{{"LINE": {at}}}\n' for at in range(25)]
    assert output.kept_path.read_text() == "".join(good)


@pytest.mark.parametrize(("owner", "step"), [(publish_file, "_link"), (FilePublication, "appear")])
def test_run_killed_while_it_publishes_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    real = getattr(owner, step)

    def die(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, die)
        place.die(after=99)
    assert place.target.exists() == (step == "appear")
    assert kept_job(place.target) is not None
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert place.told == []
    assert place.beside == ["bad.jsonl", "out.jsonl"]


@pytest.mark.parametrize("resumes", [False, True])
def test_run_killed_behind_its_end_has_nothing_left_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "finish", lambda _: os._exit(9))
        place.die(after=99)
    inode = place.target.stat().st_ino
    place.run(LogOptions(resume=resumes), overwrite=not resumes)
    assert (place.target.stat().st_ino == inode) == resumes
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_run_that_has_rejected_something_is_passed_over(place: Place) -> None:
    place.run()
    inode, rejects = place.target.stat().st_ino, place.rejects.read_bytes()
    place.told.clear()
    place.run(RESUME)
    assert place.told == []
    assert place.target.stat().st_ino == inode
    assert place.rejects.read_bytes() == rejects
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_held_output_is_published_later(place: Place) -> None:
    place.target.write_text("before\n")
    place.run(hold=True)
    assert place.target.read_text() == "before\n"
    place.run(RESUME, hold=True)  # nothing is left to do, and it stays held
    assert verify_job(place.target).proof.rejected == 5
    done = publish_job(place.target, overwrite=True, backup=True)
    assert place.target.read_text() == expected(place)
    assert Path(done.backup).read_text() == "before\n"
    assert verify_job(place.target).is_published


def test_held_run_is_published_by_resuming_it(place: Place) -> None:
    place.run(hold=True)
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_run_that_a_limit_has_ended_is_not_published(place: Place) -> None:
    place.run(RESUME, policy=ErrorPolicy.skip(max_errors=3), hold=True)
    with pytest.raises(JobError, match="has not come to its end"):
        publish_job(place.target)


def test_replaced_target_is_kept(place: Place) -> None:
    place.target.write_text("before\n")
    output = place.run(overwrite=True, backup=True)
    assert output.backup_path is not None
    assert output.backup_path.read_text() == "before\n"
    assert place.run(overwrite=True, backup=False).backup_path is None


def test_published_output_that_is_gone_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "finish", lambda _: os._exit(9))
        place.die(after=99)
    place.target.unlink()
    place.rejects.unlink()
    place.run(RESUME)
    assert place.target.read_text() == expected(place)


def test_target_that_appears_during_a_run_is_kept_with_the_log(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirm = JobOutput.check_sources

    def appear(output: JobOutput) -> None:
        confirm(output)
        place.target.write_text("other")

    with monkeypatch.context() as patch:
        patch.setattr(JobOutput, "check_sources", appear)
        with pytest.raises(ConfigurationError, match="exists"):
            place.run()
    assert place.target.read_text() == "other"
    with pytest.raises(ConfigurationError, match="add --overwrite"):
        place.run(RESUME)
    place.told.clear()
    place.run(RESUME, overwrite=True)
    assert place.told == []
    assert place.target.read_text() == expected(place)


def test_source_that_is_removed_during_a_run_is_reported(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = JobOutput.check_sources

    def remove(output: JobOutput) -> None:
        place.source.unlink()
        check(output)

    monkeypatch.setattr(passing_faults, "WAIT_S", 0.0)
    monkeypatch.setattr(JobOutput, "check_sources", remove)
    with pytest.raises(ConfigurationError, match=r"cannot read .*in\.jsonl: No such file"):
        place.run()


def test_rejects_of_a_run_that_its_limit_ended_are_replaced_when_it_goes_on(place: Place) -> None:
    policy = ErrorPolicy.skip(max_errors=3)
    for options in (RESUME, RESUME):
        place.run(options, policy=policy)
        assert len(place.rejects.read_text().splitlines()) == 3
    assert beside(place.target).is_dir()


def test_rejects_are_replaced_if_a_run_was_killed_behind_them(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last second's entries need not be durable by then, and blank lines not settled."""
    monkeypatch.setattr(job_log, "COMMIT_EVERY_S", 60.0)
    with monkeypatch.context() as patch:
        patch.setattr(LineFeed, "finish", lambda _: os._exit(9))
        place.die(after=99)
    assert place.rejects.exists()
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_rejects_file_of_somebody_else_is_kept(place: Place) -> None:
    place.die()
    place.rejects.write_text("other")
    with pytest.raises(ConfigurationError, match="it exists"):
        place.run(RESUME)
    assert place.rejects.read_text() == "other"


def test_folder_that_disappears_during_a_run_is_reported(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, away = LineFeed.deliver, place.target.with_name("away")

    def hide(feed: LineFeed, result: ChunkResult[Frame]) -> None:
        if beside(place.target).is_dir():
            beside(place.target).rename(away)
        deliver(feed, result)

    monkeypatch.setattr(LineFeed, "deliver", hide)
    with pytest.raises(ConfigurationError, match=r"cannot write .*out\.jsonl: No such file"):
        place.run()


@pytest.mark.parametrize("is_held_by_another", [False, True])
def test_file_system_that_is_gone_is_the_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch, is_held_by_another: bool
) -> None:
    monkeypatch.setattr(passing_faults, "WAIT_S", 0.0)
    deliver, here = LineFeed.deliver, place.target.parent
    away = here.with_name(f"{here.name}-away")

    def unmount(feed: LineFeed, result: ChunkResult[Frame]) -> None:
        if not away.exists():
            here.rename(away)
            here.mkdir()
            if is_held_by_another:
                place.target.with_name(".out.jsonl.lock").write_text("other")
        deliver(feed, result)

    monkeypatch.setattr(LineFeed, "deliver", unmount)
    error, told = ConfigurationError, r"cannot write .*out\.jsonl: No such file"
    if is_held_by_another:
        error, told = OutputInUseError, r"another run has taken it over"
    with pytest.raises(error, match=told):
        place.run()


def test_stream_that_was_damaged_is_not_published(place: Place) -> None:
    place.die()
    stream = beside(place.target) / "stream.1"
    stream.write_bytes(stream.read_bytes().replace(b"LINE", b"LIME", 1))
    with pytest.raises(ProofError, match="not the outputs of file 0"):
        place.run(RESUME)
    assert not place.target.exists()


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", '{"a": 1}', "\ufeff\n{}\n\n{}"])
def test_small_sources(place: Place, text: str) -> None:
    place.source.write_text(text)
    place.run()
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", "out.jsonl"]


def test_long_names_have_a_log(place: Place) -> None:
    place.target = place.target.with_name("o" * 250)
    place.die()
    place.run(RESUME)
    assert place.target.read_text() == expected(place)
    assert place.beside == ["bad.jsonl", place.target.name]


def test_leftovers_of_a_killed_beginning_are_removed(place: Place) -> None:
    left = place.source.with_name(".out.jsonl.job.0123456789abcdef.new")
    left.mkdir()
    other = place.source.with_name(".other.jsonl.job.0123456789abcdef.new")
    other.mkdir()
    place.run()
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("name", ["spec.json", "log.1"])
def test_damaged_log_can_be_discarded(place: Place, name: str) -> None:
    place.die()
    (beside(place.target) / name).write_text("{\n{\n{\n")
    with pytest.raises(JobLogError, match="is damaged"):
        place.run(RESUME)
    with pytest.raises(JobExistsError):
        place.run()
    place.run(LogOptions(restart=True))
    assert place.target.read_text() == expected(place)


def test_folder_that_is_not_a_job_is_reported(place: Place) -> None:
    beside(place.target).mkdir()
    for options in [BEGIN, RESUME, LogOptions(restart=True)]:
        with pytest.raises(JobNotFoundError, match=r"spec\.json is missing; move or remove"):
            place.run(options)
    assert beside(place.target).is_dir()


def test_mode_of_a_target_and_its_link_are_kept(place: Place) -> None:
    place.target.write_text("old")
    place.target.chmod(0o640)
    link = place.target.with_name("link")
    link.symlink_to(place.target)
    real, place.target = place.target, link
    place.die(overwrite=True)
    place.run(RESUME, overwrite=True)
    assert link.is_symlink()
    assert real.read_text() == expected(place)
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"resume": True, "restart": True}, "exclude each other"),
        ({"accept_code": True}, "add --resume"),
        ({"resume": True, "log": False}, "without a log"),
    ],
)
def test_options_that_contradict_each_other(words: dict[str, bool], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        LogOptions(**words)
