"""Ranges settled in any order, without a fleet: they run here, and processes die in forks."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pyrmute_tasks.engine import chunk_sizes
from pyrmute_tasks.engine.error_policy import ErrorPolicy
from pyrmute_tasks.engine.pipeline import ChunkResult
from pyrmute_tasks.engine.stopping import JobStopped, Stop, stoppable
from pyrmute_tasks.errors import ConfigurationError, JobExistsError, ProofError
from pyrmute_tasks.io import passing_faults
from pyrmute_tasks.io.earlier_runs import LogOptions, kept_job
from pyrmute_tasks.io.job_output import JobOutput
from pyrmute_tasks.io.kept_jobs import discard_job
from pyrmute_tasks.io.range_feed import RangeFeed
from pyrmute_tasks.io.range_source import RangeSource
from pyrmute_tasks.jobs import log as job_log
from pyrmute_tasks.jobs import publish_file
from pyrmute_tasks.jobs.copying import append
from pyrmute_tasks.jobs.log import LogWriter
from pyrmute_tasks.jobs.publish_parts import PartsPublication
from pyrmute_tasks.ranges.frames import Piece
from tests.people import broken_step
from tests.unit.local_ranges import (
    BAD,
    BEGIN,
    GOOD,
    RAISE,
    RECORDS,
    RESUME,
    SKIP,
    Place,
    die_halfway,
    lines,
)


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
    assert place.is_finished


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
    assert place.is_finished


def test_log_that_is_found_needs_a_word(place: Place) -> None:
    place.die(die_after=3)
    with pytest.raises(JobExistsError, match="--resume goes on with it"):
        place.run()
    place.run(LogOptions(restart=True))
    assert place.written == GOOD * 2


@pytest.mark.parametrize("seed", range(4))
def test_limit_of_rejects_counts_those_of_earlier_runs(place: Place, seed: int) -> None:
    policy = ErrorPolicy.skip(max_errors=2)
    place.die(policy=policy, die_after=3, seed=seed)
    output = place.run(RESUME, policy, seed=4, keep_partial=place.target[-1] != "/")
    failure = place.told[-1].failure
    assert failure is not None
    assert failure.index == 150
    assert kept_job(place.target) is not None
    if output.kept_path is not None:
        before = GOOD.splitlines(keepends=True)[: 150 - 2]
        assert output.kept_path.read_bytes() == b"".join(before)
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
    assert place.is_finished
    names = {path.name for path in place.rejects.parent.iterdir()}
    assert names == {place.job.name, "bad.jsonl", "in", "out"}


@pytest.mark.parametrize("place", ["out/"], indirect=True)
@pytest.mark.parametrize("discards", [False, True])
def test_parts_that_were_about_to_be_replaced_are_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, discards: bool
) -> None:
    place.run()
    with monkeypatch.context() as patch:
        patch.setattr(PartsPublication, "appear", die_halfway)
        place.die()
    assert not Path(place.target).exists()
    old = Path(place.target).with_name("out.job.replaced")
    assert (old / "_manifest.json").is_file()
    if discards:
        discard_job(place.target)
        assert (old / "_manifest.json").is_file()
    else:
        place.run(RESUME)
        assert place.written == GOOD * 2
        assert not old.exists()


class Away:
    """Moves a path away before each call of a method, and back when it is found missing."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, path: Path, owner: type[Any], method: str
    ) -> None:
        self._path, self._away = path, path.with_name("away")
        self.waits = 0
        monkeypatch.setattr(passing_faults, "_TRY_EVERY_S", 0.0)
        call = getattr(owner, method)

        def hide_and_call(*args: Any, **kwargs: Any) -> Any:
            if path.exists():
                path.rename(self._away)
            try:
                return call(*args, **kwargs)
            finally:
                self.bring_back()

        monkeypatch.setattr(owner, method, hide_and_call)
        monkeypatch.setattr(passing_faults, "log", lambda *_: self.found_missing())

    def found_missing(self) -> None:
        self.waits += 1
        self.bring_back()

    def bring_back(self) -> None:
        if self._away.exists():
            self._away.rename(self._path)


@pytest.mark.parametrize("place", ["out.jsonl"], indirect=True)
def test_attempts_that_are_away_for_a_moment_are_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch, place.job / "parts", RangeFeed, "deliver")
    place.run()
    assert away.waits > 10
    assert place.written == GOOD * 2


def test_job_folder_that_is_away_for_a_moment_is_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch, place.job, LogWriter, "_confirm")
    place.run()
    assert away.waits > 10
    assert place.written == GOOD * 2


@pytest.mark.parametrize("owner", [JobOutput, RangeSource])
def test_source_that_is_away_for_a_moment_is_waited_for(
    place: Place, owner: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = RangeFeed.collect

    def check_and_collect(feed: RangeFeed, *, wait: bool) -> Any:
        feed._source.check()
        return collect(feed, wait=wait)

    monkeypatch.setattr(RangeFeed, "collect", check_and_collect)
    method = "check_sources" if owner is JobOutput else "check"
    away = Away(monkeypatch, place.sources[1], owner, method)
    place.run()
    assert away.waits
    assert place.written == GOOD * 2


@pytest.mark.parametrize("place", ["out.jsonl"], indirect=True)
def test_attempts_that_stay_away_end_the_run_which_goes_on_later(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing_faults, "WAIT_S", 0.0)
    with monkeypatch.context() as patch:
        Away(patch, place.job / "parts", RangeFeed, "deliver")
        patch.setattr(passing_faults, "log", lambda *_: None)
        with pytest.raises(ConfigurationError, match=r"cannot write .*parts/0.*: No such file"):
            place.run(RESUME)
    place.run(RESUME)
    assert place.written == GOOD * 2


@pytest.mark.parametrize("place", ["out.jsonl"], indirect=True)
def test_waiting_for_storage_ends_when_the_job_is_stopped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    Away(monkeypatch, place.job / "parts", RangeFeed, "deliver")
    monkeypatch.setattr(passing_faults, "log", lambda *_: stop.request())
    with stoppable(stop), pytest.raises(JobStopped):
        place.run()


@pytest.mark.parametrize("place", ["out.jsonl"], indirect=True)
def test_piece_that_was_appended_in_part_is_appended_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append_half(target: int, source: int, size_bytes: int, offset: int = 0) -> None:
        monkeypatch.setattr(publish_file, "append", append)
        append(target, source, size_bytes // 2, offset)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(publish_file, "append", append_half)
    place.run()
    assert place.written == GOOD * 2
