"""Jobs that a `Migrator` with a fleet of its own submits: it drives them, and the next one does."""

import json
import threading
from pathlib import Path

import pytest

from pyrmute_tasks import Migrator, ModelData, Settings
from pyrmute_tasks.jobs.states import ShownState
from tests.conftest import wait_until
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
LONG_S = 60.0


@pytest.fixture
def records() -> list[ModelData]:
    return [person(number) for number in range(2000)]


@pytest.fixture
def here(tmp_path: Path, records: list[ModelData]) -> Path:
    (tmp_path / "jobs").mkdir()
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "in.jsonl").write_text(lines)
    return tmp_path


def embedded(here: Path) -> Migrator:
    return Migrator.embedded(manager, workers=1, settings=Settings(jobs_root=str(here / "jobs")))


def coordinators() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("coordinator")]


@pytest.mark.slow
def test_job_goes_on_with_the_next_embedded_fleet(here: Path, records: list[ModelData]) -> None:
    with embedded(here) as migrator:
        job = migrator.submit(here / "in.jsonl", here / "out.jsonl", *HOP, max_rate=500, name="one")
        wait_until(lambda: job.progress().records > 0, "it has begun", LONG_S)
        before = job.progress()
        assert before.driver is not None
        assert coordinators()
    assert coordinators() == []
    assert not job.is_over()
    assert "the coordinator was told to end" in job.report().epochs[0].ended
    with embedded(here) as migrator:
        found = migrator.job("one")
        found.set(max_rate="none")
        done = found.wait(LONG_S)
    assert done.state is ShownState.SUCCEEDED
    assert done.epochs >= 2
    assert (here / "out.jsonl").read_text() == "".join(
        f"{manager.migrate(each, *HOP).model_dump_json()}\n" for each in records
    )


def test_job_of_a_running_fleet_is_left_to_its_coordinators(here: Path) -> None:
    settings = Settings(broker_url="redis://127.0.0.1:1/0", jobs_root=str(here / "jobs"))
    other = Migrator(manager, settings=settings)
    job = other.submit(here / "in.jsonl", here / "other.jsonl", *HOP)
    with embedded(here) as migrator:
        migrator.submit(here / "in.jsonl", here / "out.jsonl", *HOP).wait(LONG_S)
    assert job.progress().epochs == 0
