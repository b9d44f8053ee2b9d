"""Submitted jobs and mended code: accepted by a job that failed, or used to retry rejects."""

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

pytestmark = pytest.mark.slow  # a fleet for each test, whose workers start again
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
    secret, roots = "s" * 32, str(models.parent)
    with private_fleet(f"{models}:manager", secret=secret, roots=roots) as fleet:
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


def job_in(fleet: Fleet, name: str = "users") -> JobFolder:
    return JobsRoot(fleet.settings.jobs_root).find(name)


def submit(models: Path, fleet: Fleet, *options: str) -> Path:
    """Submit a job in which one record of three fails; return its target."""
    source, target = models.parent / "in.jsonl", models.parent / "out.jsonl"
    names = ["Ada Lovelace", "Plato", "Grace Hopper"]
    source.write_text("".join(json.dumps({"name": name}) + "\n" for name in names))
    hop = ("--model", "User", "--from", "1.0.0", "--to", "2.0.0", "--name", "users")
    status, told = call(fleet, "submit", *_manager(models), *hop, *options, source, target)
    assert status == 0, told
    return target


def _manager(models: Path) -> tuple[str, str]:
    return "--manager", f"{models}:manager"


def mend(models: Path, fleet: Fleet) -> None:
    models.write_text(MODELS.format(split=MENDED))
    with fleet.without_workers():
        pass  # they come back with the mended code


def firsts(target: Path) -> list[str]:
    return [json.loads(line)["first"] for line in target.read_text().splitlines()]


def test_mended_code_is_named_accepted_and_taken(models: Path, fleet: Fleet) -> None:
    target = submit(models, fleet)
    job = job_in(fleet)
    wait_until(lambda: job.view().state is LoggedState.FAILED, "it has failed", LONG_S)
    assert "ValueError" in status_of(job).reason

    mend(models, fleet)
    status, told = call(fleet, "resume", "users", *_manager(models))
    assert status == 1
    assert "step User 1.0.0 → 2.0.0" in told
    assert "--accept-code goes on with the new code" in told
    assert call(fleet, "resume", "users", "--accept-code", "--why", "mended")[0] == 0
    wait_until(lambda: job.view().state is LoggedState.SUCCEEDED, "it has succeeded", LONG_S)
    assert firsts(target) == ["Ada", "Plato", "Grace"]
    view, seen = job.view(), status_of(job)
    assert view.opened is not None
    assert view.opened.code != job.spec.fingerprint
    assert (seen.state, seen.want.why) == (ShownState.SUCCEEDED, "mended")


def test_retry_with_mended_code_puts_outputs_where_they_belong(models: Path, fleet: Fleet) -> None:
    target = submit(models, fleet, "--on-error", "skip")
    job = job_in(fleet)
    rejected = LoggedState.SUCCEEDED_WITH_REJECTS
    wait_until(lambda: job.view().state is rejected, "it has succeeded", LONG_S)
    assert firsts(target) == ["Ada", "Grace"]

    mend(models, fleet)
    status, told = call(fleet, "retry", "users", *_manager(models), "--hold")
    assert status == 0, told
    retry = job_in(fleet, told)
    wait_until(lambda: retry.view().is_held, "it is held", LONG_S)
    written = target.read_text()
    target.write_text(written + "{}\n")
    status, told = call(fleet, "publish", retry.spec.job)
    assert status == 1
    assert "is not what its run has published, so its rejects cannot be retried" in told
    target.write_text(written)
    assert call(fleet, "publish", retry.spec.job)[0] == 0
    assert firsts(target) == ["Ada", "Plato", "Grace"]
    assert call(fleet, "verify", retry.spec.job)[0] == 0
    told = call(fleet, "retry", retry.spec.job, *_manager(models))[1]
    assert f"there is nothing to retry: job {retry.spec.job} has no rejects" in told
