"""No value of a record is in a task message, an event, a log line or an error's description.

A marker stands in every value of every record. It is searched for in all that crosses the
broker's connections, which is another server than the store, in what Flower is told, and in
every log line of workers and producer at the level DEBUG.
"""

import base64
import contextlib
import json
import logging
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from celery import Celery

from pyrmute_tasks import Migrator, UnsupportedValueError
from pyrmute_tasks.distributed.app import TASK_NAME, create_app
from pyrmute_tasks.failures import describe_safely
from tests.acceptance.test_run import call_here
from tests.conftest import wait_until
from tests.fleets import QUEUE, Fleet, private_fleet
from tests.integration.secretive import DEEDS, HOP, manager, secret_record

MARKER: Final = "M4rk3rOfARecord"
PER_CHUNK: Final = 3
KINDS: Final = ("records", "file")


def records(deed: str = "", place: int = 4) -> list[Any]:
    found = [secret_record(f"{MARKER}{index}") for index in range(10)]
    if deed:
        found[place]["deed"] = deed
    return found


def unsendable() -> Any:
    # A key that could be a field's name is told: where else would one look?
    return {"deed": MARKER, "secret": {f"{MARKER} 1": {"deep": object()}}}


# --- looking for the marker ---------------------------------------------------------------

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{8,}")


def spills(data: bytes, depth: int = 4) -> bool:
    """Return whether the marker is in bytes: plain, or under layers of base64 and JSON escapes."""
    wanted = MARKER.encode()
    if wanted in data or wanted.hex().encode() in data.lower():
        return True
    if depth == 0:
        return False
    for run in _BASE64.findall(data):
        for shift in range(4):  # the run may begin before the encoded text does
            part = run[shift:]
            decoded = base64.b64decode(part[: len(part) // 4 * 4])
            if wanted in decoded or (b'"' in decoded and spills(decoded, depth - 1)):
                return True
    return False


@pytest.mark.parametrize("before", range(4))
def test_search_finds_encoded_values(before: int) -> None:
    text = b"x" * before + MARKER.encode() + b" and more"
    once = base64.b64encode(text)
    envelope = json.dumps({"body": base64.b64encode(b'{"a": "%s"}' % once).decode()}).encode()
    assert all(map(spills, (text, once, b"abc" + once, envelope, text.hex().encode())))
    assert not spills(base64.b64encode(b"x" * 200))


# --- listening ----------------------------------------------------------------------------


class Tap:
    """Records every command that a server receives."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._end = f"end-of-{id(self)}"
        self._begun = threading.Event()
        self.commands: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="tap")

    def __enter__(self) -> "Tap":
        self._thread.start()
        assert self._begun.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.echo(self._end)
        self._thread.join()

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._begun.set()
            while True:
                command = monitor.next_command()["command"]
                if self._end in command:
                    return
                self.commands.append(command)

    @property
    def data(self) -> bytes:
        return "\n".join(self.commands).encode(errors="surrogateescape")

    def task_messages(self) -> Iterator[dict[str, Any]]:
        """Return the envelopes put into the queue, with their bodies decoded."""
        for command in self.commands:
            verb, _, rest = command.partition(" ")
            key, _, envelope = rest.partition(" ")
            if verb.upper() == "LPUSH" and key == QUEUE:
                # MONITOR shows a backslash as two.
                message = json.loads(envelope.replace("\\\\", "\\"))
                message["body"] = json.loads(base64.b64decode(message["body"]))
                yield message


class Events:
    """Receives the events that Flower would receive."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._begun = threading.Event()
        self._receiver: Any = None
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen, name="events")

    def __enter__(self) -> "Events":
        self._thread.start()
        assert self._begun.wait(10)
        wait_until(self._hears, "workers are heard")
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()

    def _hears(self) -> bool:
        return any(event["type"] == "worker-heartbeat" for event in self.events)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            handlers = {"*": self.events.append}
            self._receiver = self._app.events.Receiver(connection, handlers=handlers)
            self._begun.set()
            # It looks whether to stop whenever an event or this time has passed.
            while not self._receiver.should_stop:
                with contextlib.suppress(TimeoutError):
                    self._receiver.capture(limit=None, timeout=0.2, wakeup=False)

    def of_tasks(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"].startswith("task-")]


class Everything(logging.Handler):
    """Records every log record of this process, with its extra fields and its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.names.add(record.name.partition(".")[0])
        extra = {name: value for name, value in vars(record).items() if name != "exc_info"}
        self.lines.append(f"{self.format(record)} {extra!r}")


@contextlib.contextmanager
def heard_everything() -> Iterator[Everything]:
    """Set every logger to DEBUG, also those with a level of their own."""
    handler = Everything()
    names = ("", "celery", "kombu", "amqp", "redis", "pyrmute_tasks", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(handler)
    try:
        yield handler
    finally:
        loggers[0].removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# --- one run of everything that can happen ------------------------------------------------


class Run:
    """The output of every channel while every kind of job ran."""

    def __init__(self, fleet: Fleet, tap: Tap, store_tap: Tap, events: Events) -> None:
        self.fleet = fleet
        self.tap = tap
        self.store_tap = store_tap
        self.events = events
        self.log = Everything()
        self.errors: dict[tuple[str, str], BaseException] = {}

    @property
    def worker_log(self) -> str:
        return "".join(worker.log for worker in self.fleet.workers)

    def run_all(self) -> None:
        with (
            heard_everything() as self.log,
            Migrator(manager, settings=self.fleet.settings) as migrator,
        ):
            migrator.migrate_batch(records(), *HOP, chunk_size=PER_CHUNK)
            self._migrate_file(migrator, records())
            for deed in DEEDS:
                for kind in KINDS:
                    self._fail(migrator, deed, kind)
            with pytest.raises(UnsupportedValueError) as caught:
                migrator.migrate_batch([*records(), unsendable()], *HOP)
            self.errors["source", "records"] = caught.value
            for name, line in (
                ("cut", f'{{"deed": "", "secret": "{MARKER}'),
                ("text", f'"{MARKER}"'),
                ("key", f'{{"{MARKER}": 1}}'),
            ):
                self.errors[name, "file"] = self._fail_file(migrator, line)

    def _fail(self, migrator: Migrator, deed: str, kind: str) -> None:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # of every kind
            if kind == "file":
                self._migrate_file(migrator, records(deed))
            else:
                migrator.migrate_batch(records(deed), *HOP, chunk_size=PER_CHUNK)
        self.errors[deed, kind] = caught.value

    def _fail_file(self, migrator: Migrator, line: str) -> BaseException:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # of every kind
            self._migrate_file(migrator, records(), line)
        return caught.value

    def _migrate_file(self, migrator: Migrator, rows: list[Any], line: str = "") -> None:
        source = self.write(rows, line)
        migrator.migrate_file(source, source.with_suffix(".out"), *HOP, chunk_size=PER_CHUNK)

    def write(self, rows: list[Any], line: str = "") -> Path:
        source = self.fleet.directory / "in.jsonl"
        lines = [*map(json.dumps, rows), *([line] if line else [])]
        source.write_text("".join(f"{text}\n" for text in lines))
        return source


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    name = "tests.integration.secretive:manager"
    limits: dict[str, Any] = {"soft_time_limit_s": 0.3, "time_limit_s": 5.0}
    with private_fleet(name, **limits) as fleet, create_app(fleet.settings) as app:
        for _ in range(2):
            fleet.start_worker("--loglevel", "DEBUG", "--", "-E")
        with (
            Tap(fleet.broker) as tap,
            Tap(fleet.store) as store_tap,
            Events(app) as events,
        ):
            run = Run(fleet, tap, store_tap, events)
            run.run_all()
            ended = {"task-succeeded", "task-failed"}
            wait_until(
                lambda: sum(event["type"] in ended for event in list(events.events)) > 50,
                "the events of the tasks have come",
            )
            yield run


def test_seeded_errors_are_all_raised(run: Run) -> None:
    assert len(run.errors) == 2 * len(DEEDS) + 4
    assert {type(error).__name__ for error in run.errors.values()} == {
        "InvalidRecordError",
        "MigrationError",
        "ProcessDiedError",
        "UnsupportedValueError",
        "ValidationError",
    }


def test_the_store_is_where_records_are(run: Run) -> None:
    """The search is not blind: it finds the values where they do travel."""
    assert spills(run.store_tap.data)


def test_nothing_on_the_broker_holds_a_value(run: Run) -> None:
    assert len(run.tap.commands) > 200
    assert [command for command in run.tap.commands if spills(command.encode())] == []
    assert not spills(run.tap.data)


def test_a_task_names_a_chunk_and_no_more(run: Run) -> None:
    messages = list(run.tap.task_messages())
    assert len(messages) > 50
    for message in messages:
        assert message["content-type"] == "application/json"
        assert message["headers"]["task"] == TASK_NAME
        args, kwargs, embed = message["body"]
        job, part, start, fingerprint = args
        assert re.fullmatch("[0-9a-f]{8}", job)
        assert re.fullmatch(r"\d+(:\d+\+\d+)?", part)
        assert type(start) is int
        assert fingerprint == manager.plan(*HOP).fingerprint
        assert (kwargs, set(embed.values())) == ({}, {None})
        place = r"records [\d,]+–[\d,]+( of [\d,]+| · \d+% of [\d,]+ bytes)?"
        label = rf"{place} · Secret 1\.0\.0→2\.0\.0 · job {job}"
        assert re.fullmatch(label, message["headers"]["argsrepr"])
        assert message["headers"]["kwargsrepr"] == "{}"


def test_no_event_holds_a_value(run: Run) -> None:
    kinds = {event["type"] for event in run.events.of_tasks()}
    assert {"task-received", "task-started", "task-succeeded"} <= kinds
    # A child that dies is the only thing that is a failure to Celery.
    failed = [event for event in run.events.of_tasks() if event["type"] == "task-failed"]
    assert all("WorkerLostError" in repr(event) for event in failed), failed[0]
    assert [event for event in run.events.events if spills(repr(event).encode())] == []


def test_no_log_line_of_a_worker_holds_a_value(run: Run) -> None:
    lines = run.worker_log.splitlines()
    assert any("DEBUG" in line for line in lines)
    assert [line for line in lines if spills(line.encode())] == []
    assert [line for line in lines if "Error in timer" in line] == []


def test_no_log_line_of_the_producer_holds_a_value(run: Run) -> None:
    assert "pyrmute_tasks" in run.log.names
    assert [line for line in run.log.lines if spills(line.encode())] == []


def test_no_description_of_an_error_holds_a_value(run: Run) -> None:
    told = {name: describe_safely(error) for name, error in run.errors.items()}
    assert {name: text for name, text in told.items() if spills(text.encode())} == {}
    for (deed, _), text in told.items():
        if deed in DEEDS:
            assert "record 4" in text


# --- the command line ---------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["chain", "number"])
def test_the_command_line_quotes_records_only_if_asked(run: Run, deed: str) -> None:
    source = run.write(records(deed))
    silent = tell(run, source)
    assert "record 4" in silent.stderr
    assert not spills((silent.stdout + silent.stderr).encode())
    asked = tell(run, source, "--include-records")
    assert "record 4" in asked.stderr
    assert spills(asked.stderr.encode())


def tell(run: Run, source: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    settings = run.fleet.settings
    where = ("--broker", settings.broker_url, "--store", settings.store_url)
    what = ("--manager", settings.manager, "--model", HOP[0], "--from", HOP[1], "--to", HOP[2])
    target = str(source.with_suffix(".out"))
    result = call_here("run", "--overwrite", source, target, *where, *what, *options)
    assert result.returncode == 1
    return result


def test_a_client_of_redis_quotes_no_command(run: Run) -> None:
    """redis-py puts the failed command, and so a record, into its errors."""
    run.fleet.store.config_set("maxmemory", "1")
    try:
        with (
            heard_everything() as log,
            Migrator(manager, settings=run.fleet.settings) as migrator,
            pytest.raises(Exception) as caught,  # noqa: PT011  # its text is what matters
        ):
            migrator.migrate_batch(records(), *HOP, chunk_size=PER_CHUNK)
    finally:
        run.fleet.store.config_set("maxmemory", "0")
    assert not isinstance(caught.value, redis.RedisError)
    assert not spills("\n".join([*log.lines, str(caught.value)]).encode())
