"""Submitted jobs, and the file systems of their targets and of their jobs root."""

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.jobs.entries import Ended, JobResult
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.publish import backup_path
from pyrmute_tasks.jobs.states import LoggedState
from tests.conftest import cannot_run
from tests.fleets import Fleet, kill_group
from tests.fleets.mounts import can_mount, filled, moved_away, own_mounts, read_only, with_tmpfs
from tests.integration.service import (
    Service,
    end_of,
    entries_of,
    fleet_of,
    loop,
    service_of,
    slow,
    view_of,
)
from tests.people import person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
AWAY_S = 4.0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path) as fleet:
        yield fleet


@pytest.fixture
def service(fleet: Fleet, tmp_path: Path) -> Iterator[Service]:
    with service_of(fleet, tmp_path) as service:
        yield service


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the jobs root."""
    memory = Path("/dev/shm")  # noqa: S108  # a file system that is nearly everywhere
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        cannot_run("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_targets_on_another_file_system(service: Service, elsewhere: Path) -> None:
    records = [person(index) for index in range(600)]
    old = elsewhere / "old"
    old.write_text("before\n")
    jobs = [
        service.submit(records, by_reference="always", target=elsewhere / "direct"),
        service.submit(records, by_reference="never", chunk_size=100, target=elsewhere / "through"),
        service.submit(records, by_reference="always", target=old, overwrite=True, backup=True),
        service.submit(records, by_reference="always", target=elsewhere / "parts", is_parts=True),
    ]
    process = service.coordinator("--until-idle")
    for job in jobs:
        assert service.wait_for_end(job).state is LoggedState.SUCCEEDED, end_of(job).why
    assert process.wait(60) == 0
    for job in jobs[:3]:
        assert service.output(job) == loop(records)
    assert backup_path(old, jobs[2].spec.job).read_text() == "before\n"
    parts = elsewhere / "parts"
    listed = json.loads((parts / "_manifest.json").read_text())["parts"]
    assert b"".join((parts / each["name"]).read_bytes() for each in listed) == loop(records)
    assert not [path for path in elsewhere.iterdir() if path.name.startswith(".")]


def test_file_that_a_killed_coordinator_was_joining_goes_with_the_next_epoch(
    service: Service,
) -> None:
    records = slow([person(index) for index in range(1200)], 0.01)
    job = service.submit(records, by_reference="always")
    target = Path(job.spec.target)
    joined = target.with_name(f".{target.name}.{job.spec.job}.joined.1")
    first = service.coordinator()
    service.wait(joined.exists, "the output is being joined")
    kill_group(first, signal.SIGKILL)
    first.wait()
    assert joined.exists()
    service.coordinator()
    service.wait(lambda: not joined.exists(), "it was removed")
    assert view_of(job).state is LoggedState.RUNNING
    assert service.wait_for_end(job).state is LoggedState.SUCCEEDED
    assert service.output(job) == loop(records)


@pytest.mark.skipif(not can_mount(), reason="it mounts a file system")
@pytest.mark.parametrize("fault", [moved_away, read_only, filled])
def test_jobs_root_that_is_of_no_use_for_a_while(
    tmp_path: Path, fault: Callable[[Path], AbstractContextManager[None]]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with (
        own_mounts(),
        with_tmpfs(data, 1 << 25),
        fleet_of(data) as fleet,
        service_of(fleet, data) as service,
    ):
        job, records = _long_job(service)
        process = service.coordinator()
        service.wait_for_ranges(job, 3)
        with fault(data):
            time.sleep(AWAY_S)  # whatever is tried meanwhile
        assert service.wait_for_end(job, 150).state is LoggedState.SUCCEEDED, end_of(job).why
        assert service.output(job) == loop(records)
        assert process.poll() is None
        ends = [each.result for each in entries_of(job) if isinstance(each, Ended)]
        assert ends == [JobResult.SUCCEEDED]


def _long_job(service: Service) -> tuple[JobFolder, list[Any]]:
    records = slow([person(index) for index in range(900)], 0.01)
    return service.submit(records, by_reference="always"), records
