"""A coordinator's signs of life, and the check of its container."""

import os
import time
from pathlib import Path

import pytest

from pyrmute_tasks.errors import ConfigurationError, JobError
from pyrmute_tasks.health import check_coordinator
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.service.beats import beat, remove_old_beats
from pyrmute_tasks.settings import Settings

HOST = "here"


def test_coordinator_is_healthy_while_it_looks_at_its_jobs_root(tmp_path: Path) -> None:
    settings = Settings(jobs_root=str(tmp_path))
    with pytest.raises(JobError, match="no coordinator of host here has ever looked at the jobs r"):
        check_coordinator(settings, HOST)
    beat(tmp_path, HOST)
    check_coordinator(settings, HOST)
    (sign,) = tmp_path.iterdir()
    os.utime(sign, (time.time() - 60,) * 2)
    with pytest.raises(JobError, match="no coordinator of host here has looked for 60 s at the"):
        check_coordinator(settings, HOST)
    beat(tmp_path, HOST)
    check_coordinator(settings, HOST)
    with pytest.raises(JobError):
        check_coordinator(settings, "there")
    assert not list(JobsRoot(tmp_path).jobs())


def test_coordinator_without_its_jobs_root_is_unhealthy(tmp_path: Path) -> None:
    for root in ("", str(tmp_path / "unmounted")):
        with pytest.raises(ConfigurationError, match="jobs root"):
            check_coordinator(Settings(jobs_root=root), HOST)


def test_signs_of_hosts_that_are_gone_are_removed(tmp_path: Path) -> None:
    for host in ("gone", "here"):
        beat(tmp_path, host)
    os.utime(tmp_path / ".coordinator.gone", (time.time() - 2 * 86400,) * 2)
    remove_old_beats(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".coordinator.here"]
