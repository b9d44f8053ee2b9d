"""Surroundings do not matter: other files, other variables, other Celery tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from pyrmute_tasks import Migrator, Settings
from tests.conftest import ROOT
from tests.fleets import private_fleet
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = [person(index) for index in range(12)]
EXPECTED = manager.migrate_batch_data(RECORDS, *HOP)
NOWHERE = "redis://127.0.0.1:1/0"
FOREIGN = {
    "CELERY_BROKER_URL": NOWHERE,
    "CELERY_BROKER_READ_URL": NOWHERE,
    "CELERY_BROKER_WRITE_URL": NOWHERE,
    "CELERY_RESULT_BACKEND": NOWHERE,
    "CELERY_LOADER": "nowhere:Loader",
    "CELERY_CONFIG_MODULE": "nowhere",
    "REMAP_SIGTERM": "SIGQUIT",
    "APP": "nowhere",
    "BROKER_URL": NOWHERE,
    "CONFIG_MODULE": "nowhere",
}
SHADOWS = ("redis", "celery", "kombu", "pydantic", "click", "billiard")
ORDERS = """
from pydantic import BaseModel
from pyrmute_tasks import ModelManager

manager = ModelManager()

@manager.model("Order", "1.0.0")
class OrderV1(BaseModel):
    amount: int

@manager.model("Order", "2.0.0")
class OrderV2(BaseModel):
    amount: int
    paid: bool

@manager.migration("Order", "1.0.0", "2.0.0")
def pay(record):
    return {**record, "paid": False}
"""


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("foreign")
def test_variables_of_celery_steer_no_embedded_fleet() -> None:
    with Migrator("tests.people:manager", workers=1) as migrator:
        assert migrator.migrate_batch_data(RECORDS, *HOP) == EXPECTED


@pytest.mark.usefixtures("foreign")
def test_variables_of_celery_steer_no_worker_and_no_producer() -> None:
    with private_fleet("tests.people:manager") as fleet:
        fleet.start_worker()
        with Migrator("tests.people:manager", settings=fleet.settings) as migrator:
            assert migrator.migrate_batch_data(RECORDS, *HOP) == EXPECTED


def test_job_runs_inside_a_celery_task() -> None:
    app = Celery("somebody", set_as_current=False, broker="memory://")

    @app.task(bind=True)
    def run(task: Any, settings: Settings) -> tuple[bool, Any, int]:
        with Migrator("tests.people:manager", settings=settings) as migrator:
            outputs = migrator.migrate_batch_data(RECORDS, *HOP)
        return app.current_worker_task is not None, outputs, len(task.request.children)

    with private_fleet("tests.people:manager") as fleet:
        worker = fleet.start_worker()
        inside, outputs, children = run.apply((fleet.settings,)).get()
        assert inside
        assert outputs == EXPECTED
        assert children == 0
        assert "rejected" not in worker.log


@pytest.mark.slow
def test_files_beside_the_data_are_not_executed(tmp_path: Path) -> None:
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()\n")
    (tmp_path / "orders.py").write_text(ORDERS)
    (tmp_path / "in.jsonl").write_text(json.dumps({"amount": 1}) + "\n")
    command = [str(Path(sys.executable).parent / "pyrmute-tasks"), "run", "in.jsonl", "out.jsonl"]
    command += ["--workers", "1"]
    for spec in ("orders:manager", "orders.py:manager"):
        done = subprocess.run(
            [*command, "--manager", spec, "--model", "Order", "--from", "1.0.0", "--to", "2.0.0"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "out.jsonl").read_text()) == {"amount": 1, "paid": False}
        (tmp_path / "out.jsonl").unlink()
    assert not (tmp_path / "executed").exists()
