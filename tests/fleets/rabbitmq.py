"""A private RabbitMQ server.

The server has a node name, a cookie, ports and directories of its own, so it meets no other
one of this machine. Its start takes seconds; keep one for as many tests as may share it, each
with a queue of its own.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tests.conftest import cannot_run, wait_until
from tests.fleets.processes import HOST, Processes, end, free_port

__all__ = ["USER", "RabbitMQ", "find_server"]

USER: Final = "tester"

_DEBIAN_HOMES: Final = "lib/rabbitmq/lib/rabbitmq_server-*"  # what /usr/sbin has is a wrapper
_HELLO: Final = b"AMQP\x00\x00\x09\x01"
_START_TIMEOUT_S: Final = 60.0
# Idle threads must sleep and not spin: tests need the processors.
_ERLANG: Final = (
    "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
)
_CONTROL_S: Final = 30.0  # its command line takes seconds to start


def find_server() -> Path | None:
    """Return the directory of an installed server with its ``sbin`` and ``plugins``."""
    search_path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/opt/homebrew/sbin"])
    found = shutil.which("rabbitmq-server", path=search_path)
    homes = [*sorted(Path("/usr").glob(_DEBIAN_HOMES), reverse=True)]
    if found:
        homes.append(Path(found).resolve().parents[1])
    for home in homes:
        if (home / "sbin/rabbitmq-server").exists() and (home / "plugins").is_dir():
            return home
    return None


def require_server() -> Path:
    """Return the server's directory; skip the test if there is none, or fail it in CI."""
    home = find_server()
    if home is None or not shutil.which("epmd"):
        cannot_run("no rabbitmq-server is installed on this machine")
    return home


class RabbitMQ:
    """A private server; a context manager that leaves nothing behind.

    Args:
        host: The address that it listens on.
        consumer_timeout_s: After which it takes a message back; by default half an hour.

    Attributes:
        password: Of `USER`, who may do everything.
    """

    def __init__(self, host: str = HOST, consumer_timeout_s: float | None = None) -> None:
        self._host = host
        self._consumer_timeout_s = consumer_timeout_s
        self.password = secrets.token_hex(8)
        self._installed = require_server()
        self._directory = Path()
        self._ports: dict[str, int] = {}
        self._processes: Processes | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Short, because it becomes part of long paths.
        self._directory = Path(tempfile.mkdtemp(prefix="rmq-", dir="/tmp"))
        self._processes = Processes(self._directory)
        try:
            self._ports = dict(zip(("amqp", "dist", "epmd"), _free_ports(3), strict=True))
            self._write_files()
            # Its own, in the foreground: the one that Erlang starts is a daemon, and stays.
            epmd = ["epmd", "-port", str(self._ports["epmd"]), "-address", HOST]
            self._spawn(epmd)
            # Or the server finds none, and starts that daemon.
            wait_until(self._epmd_listens, "epmd listens", _START_TIMEOUT_S)
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    # --- where it is ------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.url_of(USER, self.password)

    def url_of(self, user: str, password: str) -> str:
        return f"amqp://{user}:{password}@{self._host}:{self._ports['amqp']}//"

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    @property
    def log(self) -> str:
        return (self._directory / "rabbitmq.log").read_text(errors="replace")

    # --- its life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server with its data, and wait until it answers AMQP."""
        self._server = self._spawn([str(self._directory / "home/sbin/rabbitmq-server")])
        wait_until(self._answers, "RabbitMQ answers", _START_TIMEOUT_S)

    def stop(self) -> None:
        """Shut it down in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again; durable queues and their messages are kept."""
        self.stop()
        self.start()

    @contextmanager
    def closing_connections(self, every_s: float) -> Iterator[None]:
        """Close all connections again and again, as an operator does."""
        stop = threading.Event()

        def close() -> None:
            while not stop.wait(every_s):
                self._control("close_all_connections", "a test")

        thread = threading.Thread(target=close, name="closer")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def freeze(self) -> None:
        """Stop its processes, as on a host that hangs: connections stay open without answers."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: _is_stopped(self.pid), "all threads of RabbitMQ have stopped")

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _control(self, *command: str) -> None:
        process = self._spawn([str(self._directory / "home/sbin/rabbitmqctl"), *command])
        assert process.wait(_CONTROL_S) == 0, self.log[-2000:]

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, f"RabbitMQ did not start:\n{self.log[-3000:]}"
        try:
            with socket.create_connection((self._host, self._ports["amqp"]), 1.0) as client:
                client.sendall(_HELLO)
                return client.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def _epmd_listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, self._ports["epmd"])) == 0

    def _end(self, number: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is not None:
            end(server, number)

    def _close(self) -> None:
        self.kill()
        if self._processes is not None:
            self._processes.close()
        shutil.rmtree(self._directory)

    # --- what it needs ----------------------------------------------------------------------

    def _spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        assert self._processes is not None
        env, directory = self._variables(), self._directory
        return self._processes.start("rabbitmq", command, env, cwd=directory, inherits=False)

    def _variables(self) -> Mapping[str, str]:
        directory = self._directory
        node = f"test-{self._ports['amqp']}@localhost"
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(directory),  # of the cookie
            "TMPDIR": str(directory),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_INETRC": str(directory / "inetrc"),
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_IP_ADDRESS": self._host,
            "RABBITMQ_NODE_PORT": str(self._ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_LOGS": "-",
            # The machine's own files in /etc/rabbitmq are for the machine's own server.
            "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            # Then the script becomes the server instead of waiting for it as its parent.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _write_files(self) -> None:
        files = {
            "env.conf": "",
            "advanced.config": self._advanced_config(),
            "enabled_plugins": "[].\n",
            "rabbitmq.conf": f"default_user = {USER}\ndefault_pass = {self.password}\n",
            # Without it Erlang starts a helper process to look up `localhost`.
            "inetrc": '{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n',
        }
        for name, text in files.items():
            (self._directory / name).write_text(text)
        self._link_home()

    def _advanced_config(self) -> str:
        if self._consumer_timeout_s is None:
            return "[].\n"
        timeout_ms = int(self._consumer_timeout_s * 1000)
        # It looks once a minute, unless it is told otherwise.
        return (
            f"[{{rabbit, [{{consumer_timeout, {timeout_ms}}}, {{channel_tick_interval, 250}}]}}].\n"
        )

    def _link_home(self) -> None:
        """Create a home without plugins: the server reads all of them before it starts."""
        home = self._directory / "home"
        shutil.copytree(self._installed / "sbin", home / "sbin")
        (home / "plugins").mkdir()
        for library in (self._installed / "plugins").iterdir():
            is_plugin = library.name.startswith("rabbitmq_")
            if not is_plugin or library.name.startswith("rabbitmq_prelaunch"):
                (home / "plugins" / library.name).symlink_to(library)
        (home / "escript").symlink_to(self._installed / "escript")


def _is_stopped(pid: int) -> bool:
    """Return whether every thread has stopped, which takes a moment on another core."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in _thread_stats(pid)]
    return set(states) <= {"T", "t"}


def _thread_stats(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*/stat"))


def _free_ports(count: int) -> list[int]:
    """Return ports that stay free while the server is down, and differ."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
