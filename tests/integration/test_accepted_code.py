"""A submitted job that failed goes on with mended code, once that is accepted by name."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.states import LoggedState, ShownState
from pyrmute_tasks.service.status import status_of
from tests.conftest import wait_until
from tests.fleets import Fleet, private_fleet

LONG_S = 60.0
MODELS = """
from pydantic import BaseModel
from pyrmute_tasks import ModelManager

manager = ModelManager()


@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    name: str


@manager.model("User", "2.0.0")
class UserV2(BaseModel):
    first: str
    last: str


@manager.migration("User", "1.0.0", "2.0.0")
def split_name(data):
    first, last = {split}
    return {{"first": first, "last": last}}
"""
BROKEN, MENDED = 'data["name"].split(" ")', '(data["name"] + " ").split(" ")[:2]'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(MODELS.format(split=BROKEN))
    return path


@pytest.fixture
def fleet(models: Path) -> Iterator[Fleet]:
    (models.parent / "jobs").mkdir()
    with private_fleet(f"{models}:manager") as fleet:
        fleet.settings = replace(fleet.settings, jobs_root=str(models.parent / "jobs"))
        fleet.start_worker()
        fleet.start_process("coordinator", [sys.executable, "-m", "pyrmute_tasks", "coordinator"])
        yield fleet


def call(fleet: Fleet, *arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pyrmute_tasks", *map(str, arguments)],
        env=os.environ | fleet.settings.to_env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip()


def job_in(fleet: Fleet) -> JobFolder:
    return JobsRoot(fleet.settings.jobs_root).find("users")


def test_mended_code_is_named_accepted_and_taken(models: Path, fleet: Fleet) -> None:
    source, target = models.parent / "in.jsonl", models.parent / "out.jsonl"
    names = ["Ada Lovelace", "Plato", "Grace Hopper"]
    source.write_text("".join(json.dumps({"name": name}) + "\n" for name in names))
    hop = ("--model", "User", "--from", "1.0.0", "--to", "2.0.0")
    manager = ("--manager", f"{models}:manager")
    assert call(fleet, "submit", *manager, *hop, "--name", "users", source, target)[0] == 0
    job = job_in(fleet)
    wait_until(lambda: job.view().state is LoggedState.FAILED, "it has failed", LONG_S)
    assert "ValueError" in status_of(job).reason

    models.write_text(MODELS.format(split=MENDED))
    status, told = call(fleet, "resume", "users", *manager)
    assert status == 1
    assert "step User 1.0.0 → 2.0.0" in told
    assert "--accept-code goes on with the new code" in told
    assert call(fleet, "resume", "users", "--accept-code", "--why", "mended")[0] == 0
    with fleet.without_workers():
        pass  # they come back with the mended code
    wait_until(lambda: job.view().state is LoggedState.SUCCEEDED, "it has succeeded", LONG_S)
    migrated = map(json.loads, target.read_text().splitlines())
    assert [each["first"] for each in migrated] == ["Ada", "Plato", "Grace"]
    view, seen = job.view(), status_of(job)
    assert view.opened is not None
    assert view.opened.code != job.spec.fingerprint
    assert (seen.state, seen.want.why) == (ShownState.SUCCEEDED, "mended")
