"""Retries without a fleet: what had passed is taken over, whatever dies, and the rest is run."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks import ModelData, ModelManager
from pyrmute_tasks.engine import chunk_sizes
from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.engine.job_report import JobState
from pyrmute_tasks.errors import JobChangedError, JobError, JobExistsError, JobNotFoundError
from pyrmute_tasks.file_retries import report_if_done
from pyrmute_tasks.io import job_output
from pyrmute_tasks.io.code_sample import compare_sample
from pyrmute_tasks.io.earlier_runs import LogOptions
from pyrmute_tasks.io.retried_job import RetriedJob
from pyrmute_tasks.jobs import log as job_log
from pyrmute_tasks.jobs.entries import Range
from pyrmute_tasks.jobs.folder import beside_retry
from pyrmute_tasks.jobs.publish_file import FilePublication
from pyrmute_tasks.jobs.publish_parts import PartsPublication
from pyrmute_tasks.plans.plan import MigrationPlan
from tests.people import PersonV1, PersonV2, PersonV3, split_name
from tests.unit.local_ranges import (
    BAD,
    BEGIN,
    GOOD,
    RECORDS,
    RESUME,
    Place,
    die_halfway,
    lines,
)

FILES: Final = 2


def mended(still_bad: set[str], change: Callable[[ModelData], ModelData] = dict) -> MigrationPlan:
    """Return the plan of a manager whose last step fails for some first names only."""
    manager = ModelManager()
    manager.model("Person", "1.0.0")(PersonV1)
    manager.model("Person", "2.0.0")(PersonV2)
    manager.model("Person", "3.0.0")(PersonV3)
    manager.migration("Person", "1.0.0", "2.0.0")(split_name)

    @manager.migration("Person", "2.0.0", "3.0.0")
    def add_adult(data: ModelData) -> ModelData:
        if data["age"] == -1 and data["first_name"] in still_bad:
            raise LookupError("no age")
        return change({**data, "adult": data["age"] >= 18})

    return manager.plan("Person", "1.0.0", "3.0.0")


WHOLE: Final = mended(set())


def written_by(plan: MigrationPlan, sources: list[Path]) -> bytes:
    """Return the outputs of a run without a fleet, whose failures are left out."""
    found = b""
    for path in sources:
        records = "".join(f"{line}\n" for line in path.read_text().split("\n") if line)
        found += plan.migrate_lines(records.encode(), skips=lambda _: True)[0]
    return found


@pytest.fixture(params=["out.jsonl", "out/"])
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Place:
    """A run over two files that has rejected records of both."""
    monkeypatch.setattr(job_log, "COMMIT_EVERY_S", 0.0)
    for name in ("_FIRST_RANGE_BYTES", "_MOST_RANGE_BYTES", "_LEAST_RANGE_BYTES"):
        monkeypatch.setattr(chunk_sizes, name, 1500)
    folder = tmp_path / "in"
    folder.mkdir()
    sources = [folder / "a.jsonl", folder / "b.jsonl"]
    for path in sources:
        path.write_text(lines(BAD, 2)[0])
    found = Place(sources, f"{tmp_path}/{request.param}", tmp_path / "bad.jsonl")
    found.run()
    assert found.written == GOOD * FILES
    return found


def retry(place: Place, plan: MigrationPlan, **how: Any) -> None:
    again(place, plan).run(RESUME, retried=RetriedJob.find(place.target), **how)


def again(place: Place, plan: MigrationPlan) -> Place:
    return replace(place, plan=plan, told=[], ran=[])


def rejected(place: Place) -> list[int]:
    return [json.loads(line)["index"] for line in place.rejects.read_text().splitlines()]


def names_beside(place: Place) -> set[str]:
    return {each.name for each in place.rejects.parent.iterdir()}


def test_only_ranges_with_rejects_are_run_again(place: Place) -> None:
    bad = sum(span.range.end - span.range.start for span in place.spans if span.rejected)
    retried = again(place, WHOLE)
    retried.run(RESUME, retried=RetriedJob.find(place.target))
    assert place.written == written_by(WHOLE, place.sources)
    assert sum(count for _, count in retried.ran) == bad
    assert rejected(place) == []
    assert not place.job.exists()
    assert names_beside(place) == {"in", "bad.jsonl", Path(place.target).name}
    with pytest.raises(JobNotFoundError, match="there is nothing to retry"):
        RetriedJob.find(place.target)


def test_retry_of_a_retry_mends_what_is_left(place: Place) -> None:
    left = mended({"First8"})
    retry(place, left)
    assert rejected(place) == [8, RECORDS + 8]
    assert place.written == written_by(left, place.sources)
    assert place.is_finished
    assert not beside_retry(place.job.with_name(Path(place.target).name)).exists()
    retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)
    if place.target.endswith("/"):
        manifest = json.loads((Path(place.target) / "_manifest.json").read_text())
        assert [each["job"] for each in manifest["jobs"]] == ["job", "retry", "retry"]


@pytest.mark.parametrize("seed", range(4))
def test_retry_that_is_killed_goes_on(place: Place, seed: int) -> None:
    for ranges in (1, 2):
        retried = RetriedJob.find(place.target)
        again(place, WHOLE).die(RESUME, die_after=ranges, retried=retried, seed=seed)
    assert place.written == GOOD * FILES
    with pytest.raises(JobExistsError, match=r"a retry to .* has not ended"):
        place.run(BEGIN)
    last = again(place, WHOLE)
    last.run(RESUME, retried=RetriedJob.find(place.target))
    assert place.written == written_by(WHOLE, place.sources)
    assert not place.job.exists()


def dying(call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    def die(*arguments: Any, **named: Any) -> None:
        if after:
            call(*arguments, **named)
        os._exit(9)

    return die


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["compare", "check_sources_taken", "appear", "replace"])
def test_retry_killed_before_or_behind_a_step_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    publication = PartsPublication if place.target.endswith("/") else FilePublication
    owner, name = {
        "compare": (RetriedJob, "compare"),
        "check_sources_taken": (RetriedJob, "take_over"),
        "appear": (publication, "appear"),
        "replace": (job_output, "replace_retried"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying(getattr(owner, name), after=after))
        again(place, WHOLE).die(RESUME, retried=RetriedJob.find(place.target))
    if step == "replace":
        with pytest.raises(JobNotFoundError, match="there is nothing to retry"):
            RetriedJob.find(place.target)
    else:
        retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)
    left = {name for name in names_beside(place) if not name.endswith(".lock")}
    assert left == {"in", "bad.jsonl", Path(place.target).name}


def test_run_of_the_first_records_is_retried_as_far(place: Place) -> None:
    text = place.sources[0].read_bytes().splitlines(keepends=True)
    first = replace(place, only=(Range(0, 0, len(b"".join(text[:240]))),))  # 200 records
    first.run(BEGIN)
    assert rejected(place) == [7, 8, 150]
    retry(first, WHOLE)
    whole = written_by(WHOLE, place.sources).splitlines(keepends=True)
    assert place.written == b"".join(whole[:200])


@pytest.mark.parametrize("place", ["out/"], indirect=True)
def test_retry_killed_between_two_folders_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PartsPublication, "appear", die_halfway)
        again(place, WHOLE).die(RESUME, retried=RetriedJob.find(place.target))
    assert not Path(place.target).exists()
    retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)
    assert names_beside(place) == {"in", "out", "bad.jsonl"}


def test_retry_with_rejects_killed_at_its_end_can_be_retried(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = mended({"First8"})
    with monkeypatch.context() as patch:
        patch.setattr(job_output, "replace_retried", dying(print, after=False))
        again(place, left).die(RESUME, retried=RetriedJob.find(place.target))
    assert report_if_done(place.target, lambda *_: WHOLE) is None  # other code may do better
    retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)


@pytest.mark.parametrize("left", [set(), {"First8"}])
def test_retry_that_was_killed_behind_its_end_is_done(
    place: Place, monkeypatch: pytest.MonkeyPatch, left: set[str]
) -> None:
    plan = mended(left)
    with monkeypatch.context() as patch:
        patch.setattr(job_output, "replace_retried", dying(print, after=False))
        again(place, plan).die(RESUME, retried=RetriedJob.find(place.target))
    report = report_if_done(place.target, lambda *_: plan)
    assert report is not None
    rejects = FILES * len(left)
    assert (report.state, report.rejected) == (JobState.SUCCEEDED, rejects)
    assert report.records == report.restored == FILES * RECORDS - rejects
    assert place.written == written_by(plan, place.sources)
    assert report_if_done(place.target, lambda *_: plan) is None
    assert place.is_finished


def test_later_run_discards_a_retry_that_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(job_output, "replace_retried", dying(print, after=False))
        again(place, mended({"First8"})).die(RESUME, retried=RetriedJob.find(place.target))
    place.run(BEGIN)
    assert place.written == GOOD * FILES
    assert place.is_finished


def test_restart_discards_a_retry_that_has_not_ended(place: Place) -> None:
    again(place, WHOLE).die(RESUME, die_after=1, retried=RetriedJob.find(place.target))
    place.run(LogOptions(restart=True))
    assert place.written == GOOD * FILES
    retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)


def test_retry_that_fails_leaves_the_target_and_no_job(place: Place) -> None:
    retry(place, mended({"First8"}), policy=ErrorPolicy.skip(max_errors=1))
    assert place.written == GOOD * FILES
    assert not beside_retry(place.target.rstrip("/")).exists()
    retry(place, WHOLE)
    assert place.written == written_by(WHOLE, place.sources)


def test_target_that_changes_meanwhile_is_not_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(*_: object) -> None:
        path = Path(place.target)
        path = path / "part-00000.jsonl" if path.is_dir() else path
        path.unlink()
        path.write_text("mine\n")

    monkeypatch.setattr(RetriedJob, "_kept", changing(RetriedJob._kept, change))
    with pytest.raises(JobChangedError, match="was changed while its rejects were retried"):
        retry(place, WHOLE)
    assert b"mine" in place.written


def changing(call: Callable[..., Any], change: Callable[[], None]) -> Callable[..., Any]:
    def changed(*arguments: Any) -> Any:
        yield from call(*arguments)
        change()

    return changed


def test_job_that_is_not_published_is_not_retried(place: Place) -> None:
    place.die(BEGIN, die_after=1)
    with pytest.raises(JobError, match="has not come to its end"):
        RetriedJob.find(place.target)


# --- the sample -----------------------------------------------------------------------------


def test_code_that_agrees_is_no_difference(place: Place) -> None:
    compare_sample(RetriedJob.find(place.target), WHOLE)


@pytest.mark.parametrize("number", [40, RECORDS + 41])
def test_first_record_that_differs_is_named(place: Place, number: int) -> None:
    at, name = number % RECORDS, place.sources[number // RECORDS]
    name.write_text(name.read_text().replace(f"First{at} ", "Other "))
    place.run(BEGIN)

    def change(data: ModelData) -> ModelData:
        return {**data, "age": 77} if data["first_name"] == "Other" else data

    line = at + 1 + (at + 2) // 5
    told = re.escape(f"record {number} ({name}, line {line}) had passed")
    with pytest.raises(JobChangedError, match=told):
        compare_sample(RetriedJob.find(place.target), mended(set(), change))


def test_record_that_fails_now_is_named(place: Place) -> None:
    def fail(data: ModelData) -> ModelData:
        if data["first_name"] == "First40":
            raise ValueError("no")
        return data

    with pytest.raises(JobChangedError, match=r"record 40 .* it fails: .* raised ValueError"):
        compare_sample(RetriedJob.find(place.target), mended(set(), fail))
