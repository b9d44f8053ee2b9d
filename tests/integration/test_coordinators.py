"""Submitted jobs, driven by coordinators in processes of their own, and steered by files."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.jobs.entries import Note, Wished
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.terms import Priority
from pyrmute_tasks.jobs.want import WANT, Want
from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions
from tests.conftest import shorten_ranges
from tests.fleets import Fleet
from tests.integration.service import (
    Service,
    end_of,
    ended,
    entries_of,
    fleet_of,
    loop,
    names_in,
    notes_of,
    service_of,
    slow,
    view_of,
    write,
)
from tests.integration.short_ranges import RANGE_BYTES
from tests.people import broken_step, person

HISTORY = {"spec.json", "want.json"}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def fleet(data: Path) -> Iterator[Fleet]:
    with fleet_of(data) as fleet:
        yield fleet


@pytest.fixture
def service(fleet: Fleet, data: Path) -> Iterator[Service]:
    with service_of(fleet, data / str(next(_numbers))) as service:
        yield service


def people(count: int) -> list[Any]:
    return [person(index) for index in range(count)]


def logs_of(*epochs: int) -> set[str]:
    return HISTORY | {f"log.{epoch}" for epoch in epochs}


def test_output_is_that_of_a_loop_both_ways(service: Service) -> None:
    records = people(2000)
    jobs = [
        service.submit(records, by_reference="always"),
        service.submit(records, by_reference="never", chunk_size=100),
    ]
    process = service.coordinator("--until-idle")
    for job in jobs:
        view = service.wait_for_end(job)
        assert view.state == "succeeded", view.stopped
        assert service.output(job) == loop(records)
    assert process.wait(30) == 0
    assert all(names_in(job) == logs_of(1) for job in jobs)
    assert not service.fleet.store.keys("pt:{*")


def test_coordinator_imports_no_manager(service: Service) -> None:
    job = service.submit(people(300), by_reference="never")
    log = service.data / "imports"
    command = [sys.executable, "-X", "importtime", "-m", "pyrmute_tasks", "coordinator"]
    with log.open("wb") as file:
        subprocess.run(
            [*command, "--jobs", str(service.root.path), "--until-idle"],
            env=service.fleet.settings.to_env(),
            stderr=file,
            check=True,
            timeout=90,
        )
    assert view_of(job).state == "succeeded"
    imported = log.read_text()
    assert "pyrmute_tasks.service.coordinator" in imported
    assert "tests.people" not in imported


def test_inputs_and_outputs_of_all_kinds(service: Service) -> None:
    data, records = service.data, people(900)
    files = [write(data / f"{number}.jsonl", records[300 * number :][:300]) for number in range(3)]
    bad = people(900)
    bad[7] = bad[500] = broken_step(7)
    skipping = {"on_error": "skip", "max_crashes": 10}
    rejects = data / "bad.jsonl"
    empty = service.submit([])
    parts = service.submit([], sources=files, target=data / "parts", is_parts=True)
    one = service.submit([], sources=files, target=data / "one.jsonl")
    first = service.submit(records, options={"limit": 5}, by_reference="never")
    skipped = [
        service.submit(bad, by_reference=way, options={**skipping, "rejects": str(path)})
        for way, path in (("always", rejects), ("never", data / "bad2.jsonl"))
    ]
    many = service.submit(bad, options={**skipping, "max_errors": 1}, by_reference="never")
    failing = service.submit(bad, by_reference="always")
    with service.coordinating():
        for job in (empty, parts, one, first, *skipped, many, failing):
            service.wait_for_end(job)
    assert service.output(empty) == b""
    assert view_of(empty).state == "succeeded"
    found = sorted((data / "parts").glob("part-*"))
    assert b"".join(path.read_bytes() for path in found) == loop(records) == service.output(one)
    assert service.output(first) == loop(records[:5])
    for job in skipped:
        assert view_of(job).state == "succeeded with rejects"
        assert service.output(job) == loop([each for each in bad if each["age"] >= 0])
        assert "rejects.1" in names_in(job)
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [each["index"] for each in told] == [7, 500]
    assert end_of(many).result == "failed"
    assert end_of(many).why.startswith("more than 1 records failed, the limit of max_errors; ")
    why = end_of(failing).why
    assert "line 8 (record 7): step Person 2.0.0 → 3.0.0 raised LookupError" in why
    assert "First7" not in why
    assert not Path(failing.spec.target).exists()


@pytest.mark.slow
def test_job_is_paused_resumed_and_cancelled(service: Service) -> None:
    records = slow(people(2000), 0.02)
    job = service.submit(records, by_reference="always")
    process = service.coordinator()
    service.wait_for_ranges(job, 2)
    service.wish(job, wish=Wish.PAUSE, why="release freeze")
    began = time.monotonic()
    service.wait(lambda: view_of(job).state is LoggedState.STOPPED, "it is paused")
    assert time.monotonic() - began < 10
    assert view_of(job).stopped == "paused by test@here: release freeze"
    assert not service.fleet.store.keys("pt:{*")
    settled = view_of(job).fold.ranges
    service.wish(job, wish=Wish.RUN)
    service.wait(lambda: view_of(job).fold.ranges > settled, "it goes on")
    service.wish(job, wish=Wish.CANCEL, why="wrong file")
    view = service.wait_for_end(job)
    assert view.state is LoggedState.CANCELLED
    assert end_of(job).why == "cancelled by test@here: wrong file"
    wishes = [each.want["wish"] for each in entries_of(job) if isinstance(each, Wished)]
    assert wishes == ["run", "pause", "run", "cancel"]
    assert ended(process) == 0
    assert names_in(job) == logs_of(1, 2)
    assert {path.name for path in service.data.iterdir()} == {"jobs", f"{job.spec.job}.in"}


def test_jobs_that_nobody_drives_are_cancelled(service: Service) -> None:
    queued = service.submit(people(9), want=Want(Wish.CANCEL, at=1.0))
    paused = service.submit(people(9), want=Want(Wish.PAUSE, at=1.0))
    target = service.data / "there"
    target.write_text("precious")
    held = service.submit(people(9), target=target)
    with service.coordinating():
        assert service.wait_for_end(queued).state is LoggedState.CANCELLED
        service.wait(lambda: view_of(held).is_held, "it is held")
        assert "exists" in view_of(held).stopped
        assert view_of(paused).state is LoggedState.QUEUED
        for job in (paused, held):
            service.wish(job, wish=Wish.CANCEL)
            assert service.wait_for_end(job).state is LoggedState.CANCELLED
    assert target.read_text() == "precious"


def test_held_job_is_published_when_that_is_wished(service: Service) -> None:
    records = people(300)
    target = service.data / "there"
    target.write_text("precious")
    in_the_way = service.submit(records, target=target)
    held = service.submit(records, hold=True)
    with service.coordinating():
        for job in (in_the_way, held):
            service.wait(lambda job=job: view_of(job).is_held, "it is held")
            assert view_of(job).fold.records == 300
        assert not Path(held.spec.target).exists()
        target.unlink()
        service.wish(in_the_way, wish=Wish.RUN)
        service.wish(held, wish=Wish.PUBLISH)
        for job in (in_the_way, held):
            assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
            assert service.output(job) == loop(records)


def test_output_is_released_before_the_pieces_of_a_job_are_removed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That may take long, and users who have waited for the end retry or publish meanwhile."""
    job = service.submit(people(100))
    target = Path(job.spec.target)
    lock = target.with_name(f".{target.name}.lock")
    keep = JobFolder.keep_history
    was_held: list[bool] = []

    def watched(folder: JobFolder) -> None:
        was_held.append(lock.exists())
        keep(folder)

    monkeypatch.setattr(JobFolder, "keep_history", watched)
    service.drive()
    assert was_held == [False]
    assert service.output(job) == loop(people(100))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["never", "always"])
def test_limits_change_while_a_job_runs(service: Service, way: str) -> None:
    records = slow(people(900), 0.004)
    chunk_size = 20 if way == "never" else None
    want = Want(max_rate=25.0, at=1.0)
    job = service.submit(records, by_reference=way, want=want, chunk_size=chunk_size)
    with service.coordinating():
        service.wait_for_ranges(job, 2)
        began, records_before = time.monotonic(), view_of(job).fold.records
        # At most 25 a second, so it takes some four seconds.
        service.wait(
            lambda: view_of(job).fold.records >= records_before + 100, "some more are done"
        )
        rate = (view_of(job).fold.records - records_before) / (time.monotonic() - began)
        assert rate < 60
        service.wish(job, max_rate=0.0, window=3)
        assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
    assert service.output(job) == loop(records)
    assert notes_of(job, Note.STOPPED) == ["max_rate and window changed by test@here"]


@pytest.mark.slow
def test_torn_wishes_leave_the_last_ones_in_force(service: Service) -> None:
    records = slow(people(300), 0.02)
    job = service.submit(records, by_reference="always")
    with service.coordinating():
        service.wait_for_ranges(job, 1)
        (job.path / WANT).write_text('{"wish": "pau')
        torn = "want.json cannot be used"
        service.wait(lambda: torn in str(service.now(job)), "the trouble is noted")
        assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
    assert service.output(job) == loop(records)


def test_failed_job_goes_on_when_it_is_resumed(service: Service) -> None:
    records = people(600)
    marker = service.data / "fails"
    marker.write_text("x\n")
    records[400]["name"] = f"fail-often:{marker} 3"
    job = service.submit(records, by_reference="never", chunk_size=50)
    with service.coordinating():
        service.wait(lambda: view_of(job).state is LoggedState.FAILED, "it has failed")
        assert view_of(job).fold.records == 400
        assert "ConnectionError" in end_of(job).why
        failed = view_of(job).epoch
        service.wish(job, wish=Wish.RUN, why="mended")
        service.wait(lambda: view_of(job).epoch > failed, "it is taken up")
        service.wait(lambda: view_of(job).state is LoggedState.FAILED, "it has failed again")
        service.wish(job, wish=Wish.RUN, why="mended again")
        assert service.wait_for_end(job).state
        service.wait(lambda: view_of(job).state is LoggedState.SUCCEEDED, "it has succeeded")
    assert len(service.output(job).splitlines()) == 600


def test_job_waits_for_the_one_before_it(service: Service) -> None:
    first = service.submit(slow(people(100), 0.02), by_reference="always")
    second = service.submit(people(10), after=first.spec.job)
    third = service.submit(people(10), after=second.spec.job, queue="another")
    with service.coordinating(until_idle=True):
        service.wait_for_end(second)
    assert view_of(second).state is LoggedState.SUCCEEDED
    assert view_of(first).state is LoggedState.SUCCEEDED
    assert view_of(second).changed_at > view_of(first).changed_at
    assert view_of(third).state is LoggedState.QUEUED


def test_changed_source_fails_a_job(service: Service) -> None:
    job = service.submit(people(10))
    (service.data / f"{job.spec.job}.in").write_text("{}\n")
    service.drive()
    assert end_of(job).result == "failed"
    assert end_of(job).why.startswith("the source was changed: ")


def test_command_for_the_end_is_run_where_that_is_allowed(service: Service) -> None:
    told = service.data / "told"
    command = f'echo "$JOB_ID $JOB_RESULT $JOB_FOLDER" >> {told}'
    refused = service.submit(people(9), on_end=command)
    service.coordinator("--until-idle").wait(60)
    assert view_of(refused).state is LoggedState.SUCCEEDED
    assert not told.exists()
    assert "--allow-on-end" in service.logs()
    service.drive(allow_on_end=True)
    assert told.read_text() == f"{refused.spec.job} succeeded {refused.path}\n"
    told.unlink()
    job = service.submit(people(9), on_end=f"{command}; exit 3")
    for _ in range(2):
        service.drive(allow_on_end=True)
        assert told.read_text() == f"{job.spec.job} succeeded {job.path}\n"
    assert view_of(job).state is LoggedState.SUCCEEDED


@pytest.mark.parametrize(
    "how",
    [
        "succeeded",
        pytest.param("cancelled", marks=pytest.mark.slow),
        pytest.param("failed", marks=pytest.mark.slow),
    ],
)
def test_command_for_the_end_is_run_after_the_coordinator_was_killed_before_it(
    service: Service, how: str
) -> None:
    told = service.data / "told"
    want = Want(Wish.CANCEL if how == "cancelled" else Wish.RUN, at=1.0)
    target = service.data / ("nowhere/out" if how == "failed" else "out")  # it is given up
    command = f'echo "$JOB_RESULT" >> {told}'
    job = service.submit(people(9), want=want, target=target, on_end=command, give_up_s=0.5)
    dying = service.coordinator_that_dies_at_the_end("--allow-on-end")
    assert dying.wait(60) == -signal.SIGKILL
    assert end_of(job).result.value == how
    assert not told.exists()
    for _ in range(2):
        service.drive(allow_on_end=True)
        assert told.read_text() == f"{how}\n"


def test_command_that_was_under_way_when_the_coordinator_was_killed_is_run_again(
    service: Service,
) -> None:
    told = service.data / "told"
    kills = f"[ $(wc -l < {told}) -gt 1 ] || kill -9 $PPID"
    job = service.submit(people(9), on_end=f'echo "$JOB_RESULT" >> {told}; {kills}')
    assert service.coordinator("--allow-on-end").wait(60) == -signal.SIGKILL
    assert view_of(job).state is LoggedState.SUCCEEDED
    service.drive(allow_on_end=True)
    assert told.read_text() == "succeeded\n" * 2
    assert names_in(job) == logs_of(1) | {"on-end.1"}


def test_two_coordinators_run_a_command_once(service: Service) -> None:
    told, go_on = service.data / "told", service.data / "go-on"
    waits = f"while ! [ -e {go_on} ]; do sleep 0.05; done"
    job = service.submit(people(9), on_end=f'echo "$JOB_RESULT" >> {told}; {waits}')
    processes = [service.coordinator("--allow-on-end") for _ in range(2)]
    service.wait(told.exists, "the command is run")
    behind = service.submit(people(9))  # both look at all jobs meanwhile
    service.wait_for_end(behind)
    go_on.touch()
    service.wait(lambda: "on-end.1" in names_in(job), "that is noted")
    for process in processes:
        ended(process)
    assert told.read_text() == "succeeded\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["told to end", "paused"])
def test_output_that_is_being_joined_does_not_delay_the_end_of_an_epoch(
    service: Service, how: str
) -> None:
    records = slow(people(400), 0.005)
    job = service.submit(records, by_reference="always")
    first = service.coordinator()
    service.wait_for_ranges(job, 2)  # what is restored is joined at the end
    assert ended(first) == 0
    marker = service.data / "joins"
    process = service.coordinator_that_joins_slowly(marker)
    service.wait(marker.exists, "the output is being joined")
    if how == "paused":
        service.wish(job, wish=Wish.PAUSE)
        service.wait(lambda: view_of(job).state is LoggedState.STOPPED, "it is paused", 5.0)
        service.wish(job, wish=Wish.RUN)
    assert ended(process) == 0
    let_go = view_of(job).stopped
    assert let_go in ("paused by test@here", "the coordinator was told to end")
    assert not [path for path in service.data.iterdir() if ".joined." in path.name]
    service.coordinator()
    assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
    assert service.output(job) == loop(records)


@pytest.mark.slow
def test_jobs_take_turns_by_age_and_priority(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_ranges(monkeypatch, RANGE_BYTES)
    records = slow(people(300), 0.02)
    ways = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    jobs = [service.submit(records, by_reference="always", priority=each) for each in ways]
    stop = threading.Event()
    options = CoordinatorOptions(most_running=1, slice_s=1.0)
    coordinator = Coordinator(service.root, service.fleet.settings, options)
    thread = threading.Thread(target=coordinator.run, args=(stop,))
    thread.start()
    try:
        for job in jobs:
            assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
            assert service.output(job) == loop(records)
    finally:
        stop.set()
        thread.join()
    begun = [next(iter(History(job.storage))).at for job in jobs]
    assert begun[2] < begun[1] < begun[0]
    turns = {why for job in jobs for why in notes_of(job, Note.STOPPED)}
    assert turns == {"its turn is over, as others wait"}


@pytest.mark.slow
def test_two_coordinators_share_jobs_without_a_fight(service: Service) -> None:
    records = people(200)
    jobs = [service.submit(records, by_reference="always") for _ in range(8)]
    processes = [service.coordinator() for _ in range(2)]
    for job in jobs:
        assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
        assert service.output(job) == loop(records)
        assert view_of(job).epoch == 1
    for process in processes:
        assert ended(process, signal.SIGINT) == 0


@pytest.mark.slow  # the job outlasts what is known of the fleet
def test_coordinator_that_is_to_end_when_idle_ends_after_a_long_job(service: Service) -> None:
    job = service.submit(slow(people(900), 0.06), by_reference="always")
    process = service.coordinator("--until-idle")
    assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
    assert process.wait(10) == 0
