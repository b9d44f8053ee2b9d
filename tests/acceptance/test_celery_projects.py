"""The project on the page "Beside your Celery project": Django, FastAPI, beat, Sentry, exporter.

The page's blocks are written to files and run as the page says, with a real server and workers.
"""

import gzip
import json
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.settings import Settings
from tests.conftest import ROOT, wait_until
from tests.fleets import HOST, Processes, Valkey, free_port

PAGE: Final = ROOT / "docs" / "celery-projects.md"
FILE: Final = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS: Final = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HOP: Final = ("Order", "1.0.0", "2.0.0")
LONG_S: Final = 60.0

pytestmark = pytest.mark.slow  # five processes start


class Sentry:
    """A server that takes what sentry_sdk sends."""

    def __init__(self) -> None:
        received = self.received = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                received.append(body.decode(errors="replace"))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.dsn = f"http://public@127.0.0.1:{self._server.server_port}/1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Project:
    """The page's project in a directory, its servers and processes."""

    def __init__(self, directory: Path, processes: Processes, valkey: Valkey, dsn: str) -> None:
        self.directory = directory
        self.processes = processes
        self.settings = Settings(broker_url=valkey.url)
        self.env = {
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYRMUTE_TASKS_MANAGER": "shop.orders:manager",
            "PYRMUTE_TASKS_BROKER_URL": valkey.url,
            "SHOP_BROKER_URL": valkey.url,
            "SHOP_MIGRATE_EVERY_S": "1",
            "SENTRY_DSN": dsn,
            "PYTHONPATH": os.pathsep.join((str(directory), str(ROOT))),
        }
        for name, body in FILE.findall(PAGE.read_text()):
            path = directory / name
            for folder in (path.parent, *path.parent.parents):
                if folder == directory or not folder.is_relative_to(directory):
                    break
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "__init__.py").touch()
            path.write_text(body)

    def start(self, name: str, *command: str) -> None:
        self.processes.start(name, [sys.executable, "-m", *command], self.env)

    def start_documented(self, name: str, command: str, *options: str) -> None:
        """Start a command that the page gives."""
        assert any(command in block.splitlines() for block in COMMANDS.findall(PAGE.read_text()))
        self.start(name, *command.split(), *options)

    def run(self, name: str, *command: str) -> str:
        process = self.processes.start(name, [sys.executable, "-m", *command], self.env)
        assert process.wait(LONG_S) == 0, self.log(name)
        return self.log(name)

    def log(self, name: str) -> str:
        return self.processes.log(name).read_text(errors="replace")

    def add_orders(self, customers: list[str]) -> None:
        with sqlite3.connect(self.directory / "shop.sqlite3", timeout=30) as database:
            database.executemany(
                "INSERT INTO shop_order (version, data) VALUES ('1.0.0', ?)",
                [
                    (json.dumps({"customer": name, "paid": number % 2 == 0}),)
                    for number, name in enumerate(customers)
                ],
            )
        database.close()

    def orders(self) -> list[tuple[str, Any]]:
        with sqlite3.connect(self.directory / "shop.sqlite3", timeout=30) as database:
            rows = database.execute("SELECT version, data FROM shop_order ORDER BY id").fetchall()
        database.close()
        return [(version, json.loads(data)) for version, data in rows]


@pytest.fixture(scope="module")
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    yield sentry
    sentry.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, sentry: Sentry) -> Iterator[Project]:
    """The project with a database, and a worker that has told that it lives."""
    directory = tmp_path_factory.mktemp("project")
    processes = Processes(directory / "processes")
    try:
        valkey = Valkey(processes, host=HOST)
        valkey.start()
        project = Project(directory, processes, valkey, sentry.dsn)
        project.run("syncdb", "django", "migrate", "--run-syncdb")
        project.start("exporter", "shop.exporter")
        project.start_documented("fleet", "celery -A shop.worker worker", "--concurrency=1")
        store = Store(project.settings)
        try:
            wait_until(store.workers, f"a worker lives: {project.log('fleet')}", LONG_S)
        finally:
            store.close()
        yield project
    finally:
        processes.close()


def expected(customers: list[str]) -> list[Any]:
    return [
        {"customer": name, "status": "open" if number % 2 else "paid"}
        for number, name in enumerate(customers)
    ]


CUSTOMERS: Final = [f"Customer {number}" for number in range(300)]


def test_every_block_of_the_page_is_a_file_of_the_project(shop: Project) -> None:
    assert len(FILE.findall(PAGE.read_text())) == PAGE.read_text().count("```python\n") == 9


def test_django_project_migrates_on_workers_that_import_its_models(shop: Project) -> None:
    shop.add_orders(CUSTOMERS)
    assert "300 orders migrated" in shop.run("migrate", "django", "migrate_orders")
    assert shop.orders() == [("2.0.0", data) for data in expected(CUSTOMERS)]


def test_celery_beat_drives_a_migration(shop: Project) -> None:
    before = shop.orders()
    shop.add_orders(CUSTOMERS)
    shop.start_documented("shop-worker", "celery -A shop.celery worker", "--concurrency=1")
    schedule = shop.directory / "schedule"
    shop.start_documented("beat", "celery -A shop.celery beat", f"--schedule={schedule}")
    wait_until(
        lambda: {version for version, _ in shop.orders()} == {"2.0.0"},
        "beat has had all orders migrated",
        LONG_S,
    )
    assert shop.orders() == [*before, *(("2.0.0", data) for data in expected(CUSTOMERS))]


@pytest.fixture(scope="module")
def api(shop: Project) -> Iterator[httpx.Client]:
    port = free_port()
    shop.start("api", "uvicorn", "shop.api:app", "--port", str(port))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG_S) as client:
        wait_until(lambda: is_up(client), "the API answers", LONG_S)
        yield client


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/openapi.json").is_success
    except httpx.TransportError:
        return False


def test_fastapi_app_streams_migrated_orders(api: httpx.Client) -> None:
    orders = [{"customer": name, "paid": n % 2 == 0} for n, name in enumerate(CUSTOMERS)]
    with api.stream("POST", "/orders", json=orders) as response:
        assert [json.loads(line) for line in response.iter_lines()] == expected(CUSTOMERS)


def test_bad_record_is_seen_by_sentry_and_exporters_without_its_values(
    api: httpx.Client, shop: Project, sentry: Sentry
) -> None:
    orders: list[Any] = [{"customer": "Secret A", "paid": True}, {"customer": "Secret B"}]
    with pytest.raises(httpx.RemoteProtocolError), api.stream("POST", "/orders", json=orders) as r:
        list(r.iter_lines())  # the response ends where its source fails
    wait_until(lambda: "task-record-failed" in shop.log("exporter"), "the exporter counts it")
    described = "step Order 1.0.0 → 2.0.0 raised KeyError at orders.py"
    assert described in shop.log("exporter")
    assert "task-succeeded" in shop.log("exporter")
    wait_until(lambda: any("KeyError" in body for body in sentry.received), "Sentry hears of it")
    told = "\n".join(sentry.received)
    assert "Order: step Order 1.0.0" in told
    for seen in (told, shop.log("exporter"), shop.log("fleet")):
        assert "Secret" not in seen
