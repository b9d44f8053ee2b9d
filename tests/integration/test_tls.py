"""TLS to broker and store: certificates are verified before a password is sent."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis

from pyrmute_tasks import BrokerUnavailableError, Migrator, Settings, StoreUnavailableError
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.producer.broker import Broker
from pyrmute_tasks.distributed.store import Store
from tests.conftest import ROOT, cannot_run, wait_until
from tests.fleets import Processes, free_port
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = [person(index) for index in range(12)]
PASSWORD = "s3cr3t-w0rd"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A Redis that speaks TLS only, and requires client certificates."""

    port: int
    files: Path
    processes: Processes

    @property
    def url(self) -> str:
        files = self.files
        return (
            f"rediss://:{PASSWORD}@{HOST}:{self.port}/0?ssl_ca_certs={files}/ca.crt"
            f"&ssl_certfile={files}/own.crt&ssl_keyfile={files}/own.key"
        )


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_certificates(directory: Path) -> None:
    """Create a CA, a certificate for this host, and a stranger's for the same host."""
    name = ("-addext", f"subjectAltName=IP:{HOST}")
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    for who in ("ca", "stranger"):
        files = ("-keyout", directory / f"{who}.key", "-out", directory / f"{who}.crt")
        openssl(*new, *files, "-subj", f"/CN={who}", *name)
    request = directory / "own.csr"
    key = directory / "own.key"
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request,
            "-subj", "/CN=own", *name)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", directory / "ca.crt", "-days", "2",
            "-CAkey", directory / "ca.key", "-CAcreateserial", "-copy_extensions", "copy",
            "-out", directory / "own.crt")  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None or shutil.which("openssl") is None:
        cannot_run("needs redis-server with TLS, and openssl")
    files = tmp_path_factory.mktemp("tls")
    make_certificates(files)
    processes = Processes(files / "run")
    found = Server(free_port(), files, processes)
    options = {"port": 0, "tls-port": found.port, "bind": HOST, "requirepass": PASSWORD,
               "tls-ca-cert-file": files / "ca.crt", "tls-cert-file": files / "own.crt",
               "tls-key-file": files / "own.key", "save": "", "dir": files}  # fmt: skip
    command = [program, *(str(part) for name, value in options.items()
                          for part in (f"--{name}", value))]  # fmt: skip
    processes.start("redis", command)
    try:
        wait_until(lambda: answers(found.url), processes.log("redis").read_text())
        yield found
    finally:
        processes.close()


def answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


class Stranger:
    """A server with a certificate of no trusted CA; records what it receives."""

    def __init__(self, files: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files / "stranger.crt", files / "stranger.key")
        self._socket = socket.create_server((HOST, 0))
        self.port = self._socket.getsockname()[1]
        self.heard = b""
        self.visits = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            plain.settimeout(5)
            try:
                with self._context.wrap_socket(plain, server_side=True) as client:
                    self.heard += client.recv(4096)
            except OSError:
                continue

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def stranger(server: Server) -> Iterator[Stranger]:
    found = Stranger(server.files)
    yield found
    found.close()


def test_job_runs_over_verified_tls(server: Server) -> None:
    settings = Settings(broker_url=server.url, manager="tests.people:manager")
    command = [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"]
    worker = server.processes.start("worker", command, settings.to_env())
    store = Store(settings)
    wait_until(lambda: store.workers() or worker.poll() is not None, "a worker lives")
    store.close()
    log = server.processes.log("worker").read_text()
    assert worker.poll() is None, log
    with Migrator("tests.people:manager", settings=settings) as migrator:
        outputs = migrator.migrate_batch_data(RECORDS, *HOP)
    assert outputs == manager.migrate_batch_data(RECORDS, *HOP)
    assert PASSWORD not in server.processes.log("worker").read_text()


@pytest.mark.parametrize("options", ["", "?ssl_ca_certs={ca}"])
def test_store_of_a_stranger_gets_no_password(
    server: Server, stranger: Stranger, options: str
) -> None:
    query = options.format(ca=server.files / "ca.crt")
    settings = Settings(broker_url=f"rediss://:{PASSWORD}@{HOST}:{stranger.port}/0{query}")
    store = Store(settings)
    with pytest.raises(StoreUnavailableError, match="certificate"):
        store.check()
    assert stranger.visits
    assert stranger.heard == b""


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
@pytest.mark.parametrize("options", ["", "?ssl_ca_certs={ca}"])
def test_broker_of_a_stranger_gets_no_password(
    server: Server, stranger: Stranger, scheme: str, options: str
) -> None:
    query = options.format(ca=server.files / "ca.crt")
    url = f"{scheme}://user:{PASSWORD}@{HOST}:{stranger.port}/0{query}"
    settings = Settings(broker_url=url, store_url=server.url)
    with create_app(settings) as app, pytest.raises(BrokerUnavailableError, match="certificate"):
        Broker(app, settings).check()
    assert stranger.visits
    assert stranger.heard == b""


@pytest.mark.parametrize("scheme", ["rediss", pytest.param("amqps", marks=pytest.mark.slow)])
def test_worker_ends_at_the_broker_of_a_stranger(
    server: Server, stranger: Stranger, scheme: str
) -> None:
    url = f"{scheme}://user:{PASSWORD}@{HOST}:{stranger.port}/0"
    settings = Settings(broker_url=url, store_url=server.url, manager="tests.people:manager")
    done = subprocess.run(
        [sys.executable, "-m", "pyrmute_tasks", "worker", "--concurrency", "1"],
        cwd=ROOT,
        env=os.environ | settings.to_env(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("its certificate is not trusted") == 1
    assert "Traceback" not in done.stderr
    assert stranger.heard == b""


@pytest.mark.slow
def test_verification_can_be_turned_off(server: Server, stranger: Stranger) -> None:
    settings = Settings(
        broker_url=f"rediss://:{PASSWORD}@{HOST}:{stranger.port}/0?ssl_cert_reqs=none",
        outage_s=0.5,  # it closes each connection, as a server that is not ready may do
    )
    store = Store(settings)
    with pytest.raises(StoreUnavailableError):
        store.check()
    wait_until(lambda: stranger.heard, "the stranger is spoken to")
    broken = replace(settings, broker_url=settings.broker_url.replace("rediss", "amqps"),
                     store_url=server.url)  # fmt: skip
    stranger.heard = b""
    with create_app(broken) as app, pytest.raises(BrokerUnavailableError):
        Broker(app, broken).check()
    assert stranger.heard.startswith(b"AMQP")
