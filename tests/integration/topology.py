"""The deployed topology as local processes, started as the files in ``deploy/`` say.

The images and the compose file are read, not repeated: commands, variables, server options and
stop signals come from there; volumes, users and rights, too, where the tests run as root (see
`containers`). Replaced is only what containers have and processes have not: host names, the paths
of volumes, and a host for each worker.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import redis

from pyrmute_tasks.distributed.server_binary import server_binary
from tests.conftest import ROOT, wait_until
from tests.fleets import Processes, free_port
from tests.integration.containers import Confined, can_confine

DEPLOY: Final = ROOT / "deploy"
EXAMPLES: Final = ROOT / "examples"
PASSWORD: Final = "not-the-default-password"
FLOWER_LOGIN: Final = ("watcher", "watchers-password")
USER: Final = "10001:10001"
ENVIRONMENT: Final = {
    "VALKEY_PASSWORD": PASSWORD,
    "FLOWER_BASIC_AUTH": ":".join(FLOWER_LOGIN),
    "PYRMUTE_TASKS_MANAGER": "/migrations/flights.py:manager",
    "PYRMUTE_TASKS_SECRET": "not-the-default-secret",
    "RUN_AS": USER,
}
"""What must be set in ``.env``."""

_GRACE_S: Final = 20.0
_INHERITED: Final = ("HOME", "LANG")
_VOLUMES: Final = ("jobs", "data", "migrations")
_VOLUME: Final = re.compile(rf"(?<![\w/.-])/({'|'.join(_VOLUMES)})\b")


# --- what deploy/ says --------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """The files that a stage of the Dockerfile puts in its image."""

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

    def given(name: str, default: str = "") -> list[str]:
        return [value for found, value in instructions if found == name] or [default]

    copies = [value.split() for value in given("COPY") if not value.startswith("--from")]
    return Image(
        command=json.loads(given("CMD")[-1]),
        health_command=json.loads(given("HEALTHCHECK")[-1].partition("CMD ")[2]),
        variables=_assignments(" ".join(given("ENV")).split()),
        stop_signal=signal.Signals[given("STOPSIGNAL", "SIGTERM")[-1]],
        user=given("USER")[-1],
        copies={target: source for source, target in filter(None, copies)},
    )


def read_compose(variables: Mapping[str, str]) -> Any:
    """Read the compose file as compose does, with `variables` from ``.env``."""
    return _interpolate(parse_yaml((DEPLOY / "docker-compose.yml").read_text()), variables)


def read_env_example() -> dict[str, str]:
    """Return the variables of ``env.example``, also those that only show a default."""
    text = (DEPLOY / "env.example").read_text()
    return _assignments(re.findall(r"^#?([A-Z_]+=.*)$", text, re.M))


def _assignments(texts: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


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
    """A process of a topology, signalled as a container is.

    Args:
        process: It, the leader of its group.
        log: Where its output goes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._log = log
        self._process = process

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

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the main process alone, as to a container."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Return its status when it has ended."""
        return self._process.wait(_GRACE_S)


# --- the topology -------------------------------------------------------------------------


class Topology:
    """The services of the compose file, as processes in a directory of their own.

    A context manager; leaving it ends every process and removes the directory.

    Args:
        variables: What is in ``.env`` besides what must be.
        users: Other users of services, by name, as user and group with a colon between.
        groups: Groups of all of them, the first of which the folders belong to.
        migrations: What is mounted at ``/migrations``.

    Attributes:
        services: The services of the compose file.
        containers: The processes of each, the newest last.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        groups: Sequence[int] = (),
        migrations: Path = EXAMPLES,
    ) -> None:
        self._directory = Path()
        self._migrations = migrations
        self._variables = {**ENVIRONMENT, **(variables or {})}
        self._users = users or {}
        self._groups = groups
        self._stack = ExitStack()
        self._port = 0
        self._started = 0
        self.services: Any = {}
        self.containers: dict[str, list[Process]] = {}

    def __enter__(self) -> "Topology":
        with ExitStack() as stack:
            self._stack = stack
            directory = TemporaryDirectory(prefix="pyrmute-tasks-topology-")
            self._directory = Path(stack.enter_context(directory))
            self._directory.chmod(0o711)
            for name in ("valkey", "jobs", "data", "tmp"):
                (self._directory / name).mkdir()
            for name in ("jobs", "data"):
                self._give(self._directory / name)
            self._processes = Processes(self._directory)
            stack.callback(self._processes.close)
            self._start_valkey()
            self._make_app_directory()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def jobs(self) -> Path:
        """What is mounted at ``/jobs``."""
        return self._directory / "jobs"

    @property
    def data(self) -> Path:
        """What is mounted at ``/data``."""
        return self._directory / "data"

    def folder(self, name: str) -> Path:
        """Return a new folder of the data, which the services' user may write."""
        path = self.data / name
        path.mkdir()
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if not can_confine():
            return
        user, _, group = self._variables["RUN_AS"].partition(":")
        os.chown(path, int(user), self._groups[0] if self._groups else int(group))
        if self._groups:
            path.chmod(0o2770)

    @property
    def workers(self) -> list[Process]:
        """The workers that were started."""
        return self.containers.get("worker", [])

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"

    def client(self) -> "contextlib.AbstractContextManager[redis.Redis]":
        return contextlib.closing(redis.Redis.from_url(self.url))

    # --- valkey

    def _start_valkey(self) -> None:
        compose = read_compose(self._variables)
        self.services = compose["services"]
        # Somebody else may take the free port before the server does.
        if not any(self._valkey_starts(compose) for _ in range(3)):
            raise AssertionError((self._directory / "valkey.log").read_text())

    def _valkey_starts(self, compose: Any) -> bool:
        self._port = free_port()
        server = self._start("valkey", self._valkey_command(compose), {})
        wait_until(lambda: not server.is_running() or self._answers(), "valkey answers")
        return server.is_running()

    def _valkey_command(self, compose: Any) -> list[str]:
        service = compose["services"]["valkey"]
        (mount,) = service["configs"]
        configuration = self._directory / "valkey.conf"
        configuration.write_text(compose["configs"][mount["source"]]["content"])
        command = [
            str(configuration) if part == mount["target"] else part for part in service["command"]
        ]
        command[command.index("valkey-server")] = str(server_binary())
        data = str(self._directory / "valkey")
        return [*command, "--bind", "127.0.0.1", "--port", str(self._port), "--dir", data]

    def _answers(self) -> bool:
        with self.client() as client, contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    # --- workers

    def _make_app_directory(self) -> None:
        """Create the images' working directories, with nothing else in them."""
        for stage in ("worker", "flower"):
            for target, source in read_image(stage).copies.items():
                link = self._app_of(stage) / Path(target).relative_to("/app")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(ROOT / source)

    def _app_of(self, stage: str) -> Path:
        return self._directory / stage / "app"

    def variables(self, service: str, image: Image | None = None) -> dict[str, str]:
        """Return the environment of a service's processes."""
        given = self.services[service]["environment"]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        inherited["TMPDIR"] = str(self._directory / "tmp")  # what a killed pool leaves goes with it
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
        return _VOLUME.sub(lambda match: str(self._volume(match[1])), text)

    def _volume(self, name: str) -> Path:
        return self._migrations if name == "migrations" else self._directory / name

    def _confined(self, service: str, command: Sequence[str]) -> list[str]:
        """Return a command with what its container lets it see and do."""
        given = self.services[service]
        mounts = dict[str, bool]()
        for each in given.get("volumes", ()):
            path, _, mode = each.removeprefix(each.partition(":/")[0] + ":/").partition(":")
            mounts[path] = mode != "ro"
        assert mounts.keys() <= set(_VOLUMES), mounts
        volumes = {name: self._volume(name) for name in _VOLUMES if name != "migrations"}
        assert given["read_only"] is True
        assert given["tmpfs"] == ["/tmp"]  # noqa: S108  # a container's own
        assert given["cap_drop"] == ["ALL"]
        assert given["security_opt"] == ["no-new-privileges:true"]
        return Confined(
            user=self._users.get(service, given.get("user", USER)),
            groups=self._groups,
            scratch=self._directory / "tmp",
            writable=[path for name, path in volumes.items() if mounts.get(name) is True],
            readable=[path for name, path in volumes.items() if mounts.get(name) is False],
            hidden=[path for name, path in volumes.items() if name not in mounts],
        ).command(command)

    def start_workers(self, count: int, service: str = "worker") -> list[Process]:
        """Start workers and wait until each is ready."""
        image = read_image("worker")
        started = [self._start_one(service, image.command) for _ in range(count)]
        for worker in started:
            worker.wait_until(lambda: " ready." in worker.log, "the worker is ready")  # noqa: B023
        return started

    def start_coordinators(self, count: int) -> list[Process]:
        """Start coordinators and wait until one of them looks at its jobs."""
        command = self.services["coordinator"]["command"]
        started = [self._start_one("coordinator", command) for _ in range(count)]
        last = started[-1]
        last.wait_until(lambda: self.health("coordinator").returncode == 0, "it is healthy")
        return started

    def _start_one(self, service: str, command: Sequence[str]) -> Process:
        self._started += 1
        name = f"{service}-{self._started}"
        # Containers have host names of their own, and so other node names.
        node = [f"--hostname={name}@%h"] if command[0] == "celery" else []
        variables = self.variables(service, read_image("worker"))
        process = self._start(
            name, self._confined(service, [*command, *node]), variables, self._app_of("worker")
        )
        self.containers.setdefault(service, []).append(process)
        return process

    def stop(self, process: Process, number: signal.Signals | None = None) -> int:
        """Stop a process as `docker stop` does; return its status."""
        process.signal(number or read_image("worker").stop_signal)
        return process.wait()

    def health(self, service: str = "worker") -> subprocess.CompletedProcess[str]:
        """Run the health check of a service, or of its image."""
        image = read_image("worker")
        own = self.services[service].get("healthcheck")
        command = own["test"][1:] if own else image.health_command
        variables = self.variables(service, image)
        return self._run(self._confined(service, command), variables, self._app_of("worker"))

    # --- the others

    def start_flower(self) -> "Flower":
        """Start Flower and wait until it serves."""
        image = read_image("flower")
        command = [*image.command, "--address=127.0.0.1", "--port=0"]
        confined = self._confined("flower", command)
        variables = self.variables("flower", image)
        process = self._start("flower", confined, variables, self._app_of("flower"))
        ports: list[str] = []

        def serves() -> bool:
            ports[:] = re.findall(r"Visit me at http://127\.0\.0\.1:(\d+)", process.log)
            return bool(ports)

        process.wait_until(serves, "flower serves")
        return Flower(process, int(ports[0]))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the producer with `arguments`, in which ``/data`` is what is mounted there."""
        localised = map(self._localise, arguments)
        command = self._confined("producer", [*self.services["producer"]["entrypoint"], *localised])
        return self._run(command, self.variables("producer"), self._directory)

    def _start(
        self,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str],
        directory: Path | None = None,
    ) -> Process:
        process = self._processes.start(
            name, command, variables, cwd=directory or self._directory, inherits=False
        )
        return Process(process, self._processes.log(name))

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

    def get(self, path: str, login: tuple[str, str] | None = FLOWER_LOGIN) -> tuple[int, str]:
        """Return the status and the body that a path answers with."""
        return self._request("GET", path, login)

    def post(self, path: str) -> tuple[int, str]:
        """Return the answer to an empty POST."""
        return self._request("POST", path, FLOWER_LOGIN)

    def _request(self, method: str, path: str, login: tuple[str, str] | None) -> tuple[int, str]:
        headers = {}
        if login is not None:
            headers["Authorization"] = f"Basic {b64encode(':'.join(login).encode()).decode()}"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return Flower's data of every task, by the task's id."""
        status, body = self.get("/api/tasks")
        assert status == 200, body
        found: dict[str, dict[str, Any]] = json.loads(body)
        return found

    def shown_states(self) -> dict[str, str]:
        """Return the state that the tasks page shows of every task, by the task's id."""
        asked = "draw=1&start=0&length=1000&order[0][column]=0&columns[0][data]=uuid"
        status, body = self.get(f"/tasks/datatable?{asked}")
        assert status == 200, body
        return {task["uuid"]: task["state"] for task in json.loads(body)["data"]}

    def wait_for_workers(self, count: int) -> None:
        """Wait until Flower receives the events of `count` workers: none is missed from then on."""

        def hears() -> bool:
            lines = self.get("/metrics")[1].splitlines()
            online = [line for line in lines if re.match(r"flower_worker_online{.*} 1\.0$", line)]
            return len(online) == count

        self.process.wait_until(hears, f"flower hears {count} workers")


# --- YAML ---------------------------------------------------------------------------------


def parse_yaml(text: str) -> Any:
    """Parse as much of YAML as the compose file uses; anything else is an error.

    It spares a dependency for one file. What it reads, every YAML parser reads the same way.
    """
    reader = _YamlReader(text)
    value = reader.block(0)
    assert reader.peek() is None, f"not understood: {reader.peek()}"
    return value


class _YamlReader:
    def __init__(self, text: str) -> None:
        assert "\t" not in text
        self._lines = text.splitlines()
        self._at = 0
        self._anchors: dict[str, Any] = {}

    def peek(self) -> tuple[int, str] | None:
        """Return the next line with content, as its indent and its text."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            said = line.strip()
            if said and not said.startswith("#"):
                return len(line) - len(line.lstrip()), said
            self._at += 1
        return None

    def block(self, indent: int) -> Any:
        first = self.peek()
        assert first is not None
        return self._list(indent) if first[1].startswith("- ") else self._mapping(indent)

    def _mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self.peek()) is not None and line[0] == indent:
            match = re.fullmatch(r"(<<|[A-Za-z_][\w-]*):(?: +(.*))?", line[1])
            assert match is not None, f"not understood: {line[1]}"
            assert match[1] not in found, f"given twice: {line[1]}"
            self._at += 1
            found[match[1]] = self._value(match[2] or "", indent)
        return {**found.pop("<<", {}), **found}

    def _list(self, indent: int) -> list[Any]:
        found = []
        while (line := self.peek()) is not None and line[0] == indent:
            assert line[1].startswith("- "), f"not understood: {line[1]}"
            if re.match(r"- [a-z]+: ", line[1]):
                self._lines[self._at] = " " * (indent + 2) + line[1][2:]
                found.append(self._mapping(indent + 2))
            else:
                self._at += 1
                found.append(_scalar(line[1][2:].strip()))
        return found

    def _value(self, text: str, indent: int) -> Any:
        if text.startswith("&"):
            anchor, _, text = text[1:].partition(" ")
            self._anchors[anchor] = self._value(text, indent)
            return self._anchors[anchor]
        if text.startswith("*"):
            return self._anchors[text[1:]]
        if text == "|":
            return self._literal(indent)
        if text:
            return _scalar(text)
        following = self.peek()
        deeper = following is not None and following[0] > indent
        return self.block(following[0]) if following is not None and deeper else None

    def _literal(self, indent: int) -> str:
        lines = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            lines.append(line)
            self._at += 1
        return textwrap.dedent("\n".join(lines)).rstrip("\n") + "\n"


def _scalar(text: str) -> Any:
    if text[0] in '"[':
        return json.loads(text)
    # Without quotes only what no reader of YAML could take for something else.
    assert re.fullmatch(r"[A-Za-z0-9./][\w./:-]*", text), f"not understood: {text}"
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if text.isdigit() else text
