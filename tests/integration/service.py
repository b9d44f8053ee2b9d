"""Submitted jobs with real coordinators: a fleet, a jobs root, and what tests ask of them."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.jobs.entries import Ended, Entry, Note, Noted
from pyrmute_tasks.jobs.folder import JobFolder
from pyrmute_tasks.jobs.log import History
from pyrmute_tasks.jobs.now import Now, read_now
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.jobs.spec import SourceFile, Spec
from pyrmute_tasks.jobs.states import LoggedState
from pyrmute_tasks.jobs.terms import Terms
from pyrmute_tasks.jobs.view import JobView
from pyrmute_tasks.jobs.want import Want, read_want, write_want
from pyrmute_tasks.service.coordinator import Coordinator, CoordinatorOptions
from tests.conftest import shorten_ranges, wait_until
from tests.fleets import Fleet, kill_group, private_fleet
from tests.integration.short_ranges import RANGE_BYTES
from tests.people import DEEDS, manager

HOP = ("Person", "1.0.0", "3.0.0")
SECRET = "s" * 32
LONG_S = 90.0
ENDS = (
    LoggedState.SUCCEEDED,
    LoggedState.SUCCEEDED_WITH_REJECTS,
    LoggedState.FAILED,
    LoggedState.CANCELLED,
)


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def loop(records: list[Any]) -> bytes:
    """Return what a loop makes of records, without the time that some take."""
    assert manager.plan(*HOP).fingerprint  # it is kept, and must not be that of what is patched
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEEDS, "sleep", lambda _: None)
        models = (manager.migrate(record, *HOP) for record in records)
        return b"".join(model.model_dump_json().encode() + b"\n" for model in models)


def slow(records: list[Any], seconds: float) -> list[Any]:
    """Return records that take a time each."""
    return [{**each, "name": f"sleep:{seconds} {each['name']}"} for each in records]


class Service:
    """A jobs root, and the coordinators that drive its jobs.

    Attributes:
        fleet: The fleet.
        data: A folder that its workers see.
        root: The jobs root in it.
    """

    def __init__(self, fleet: Fleet, data: Path) -> None:
        self.fleet = fleet
        self.data = data
        path = data / "jobs"
        path.mkdir(parents=True)
        self.root = JobsRoot(path)
        self._coordinators: list[tuple[subprocess.Popen[bytes], Path]] = []

    def coordinator(self, *options: str, **settings: Any) -> subprocess.Popen[bytes]:
        module = ["tests.integration.short_ranges", "coordinator", "--jobs"]
        return self._start([*module, str(self.root.path), *options], settings)

    @contextmanager
    def coordinating(self, **options: Any) -> Iterator[None]:
        """Drive jobs as `coordinator` does, in a thread: for tests that ask how, not of what end.

        With `until_idle` it waits for that.
        """
        stop, settings = threading.Event(), replace(self.fleet.settings, manager="")
        coordinator = Coordinator(self.root, settings, CoordinatorOptions(**options))
        thread = threading.Thread(target=coordinator.run, args=(stop,))
        with pytest.MonkeyPatch.context() as patch:
            shorten_ranges(patch, RANGE_BYTES)
            thread.start()
            try:
                yield
                if options.get("until_idle"):
                    thread.join(LONG_S)
                    assert not thread.is_alive()
            finally:
                stop.set()
                thread.join()

    def drive(self, **options: Any) -> None:
        """Drive what is due, until nothing is."""
        with self.coordinating(until_idle=True, **options):
            pass

    def coordinator_that_dies_at_the_end(self, *options: str) -> subprocess.Popen[bytes]:
        module = ["tests.integration.dies_at_end", "coordinator", "--jobs"]
        return self._start([*module, str(self.root.path), *options], {})

    def coordinator_that_joins_slowly(self, marker: Path) -> subprocess.Popen[bytes]:
        module = ["tests.integration.slow_joins", str(marker), "coordinator", "--jobs"]
        return self._start([*module, str(self.root.path)], {})

    def coordinator_of_short_turns(
        self, most_running: int, slice_s: float
    ) -> subprocess.Popen[bytes]:
        options = (str(self.root.path), str(most_running), str(slice_s))
        return self._start(["tests.integration.short_turns", *options], {})

    def _start(self, module: list[str], settings: dict[str, Any]) -> subprocess.Popen[bytes]:
        name = f"coordinator-{secrets.token_hex(4)}"
        command = [sys.executable, "-m", *module]
        env = replace(self.fleet.settings, manager="", **settings).to_env()
        process = self.fleet.processes.start(name, command, env)
        self._coordinators.append((process, self.fleet.processes.log(name)))
        return process

    def close(self) -> None:
        for process, _ in self._coordinators:
            kill_group(process, signal.SIGKILL)
            process.wait()

    def logs(self) -> str:
        return "\n".join(f"{path.name}\n{path.read_text()}" for _, path in self._coordinators)

    def submit(
        self,
        records: list[Any],
        *,
        job: str = "",
        target: Path | None = None,
        want: Want | None = None,
        options: dict[str, Any] | None = None,
        sources: list[Path] | None = None,
        is_parts: bool = False,
        created_at: float | None = None,
        **terms: Any,
    ) -> JobFolder:
        job = job or os.urandom(4).hex()
        names = sources or [write(self.data / f"{job}.in", records)]
        plan = manager.plan(*HOP)
        spec = Spec(
            job,
            tuple(map(SourceFile.of, names)),
            str(target or self.data / f"{job}.out"),
            HOP,
            plan.fingerprint,
            json.dumps(plan.fingerprint_tree.to_dict()),
            {"on_error": "raise", "max_crashes": 10, **(options or {})},
            is_parts=is_parts,
            created_at=time.time() if created_at is None else created_at,
            terms=Terms(**{"queue": self.fleet.settings.queue, **terms}),
        )
        return self.root.create(spec, want or Want(who="test@here", at=time.time()))

    def wish(self, folder: JobFolder, **changes: Any) -> None:
        before = read_want(folder.storage, Want()).want
        wanted = replace(before, **{"at": time.time(), "who": "test@here", **changes})
        write_want(folder.storage, wanted)

    def now(self, folder: JobFolder) -> Now | None:
        return read_now(folder.path)

    def wait(self, condition: Any, what: str, timeout_s: float = LONG_S) -> None:
        try:
            wait_until(condition, what, timeout_s)
        except BaseException:
            print(self.logs()[-20_000:])
            raise

    def wait_for_end(self, folder: JobFolder, timeout_s: float = LONG_S) -> JobView:
        self.wait(lambda: view_of(folder).state in ENDS, f"{folder.path} has ended", timeout_s)
        return view_of(folder)

    def wait_for_ranges(self, folder: JobFolder, count: int) -> None:
        self.wait(lambda: view_of(folder).fold.ranges >= count, f"{count} ranges are settled")

    def output(self, folder: JobFolder) -> bytes:
        return Path(folder.spec.target).read_bytes()


def view_of(folder: JobFolder) -> JobView:
    return folder.view()


def entries_of(folder: JobFolder) -> list[Entry]:
    return [logged.entry for logged in History(folder.storage)]


def notes_of(folder: JobFolder, note: Note) -> list[str]:
    found = entries_of(folder)
    return [each.why for each in found if isinstance(each, Noted) and each.note is note]


def end_of(folder: JobFolder) -> Ended:
    last = entries_of(folder)[-1]
    assert isinstance(last, Ended), last
    return last


def names_in(folder: JobFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


def ended(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    """Send a signal to a coordinator, and return its exit status."""
    process.send_signal(number)
    return process.wait(20)


@contextmanager
def fleet_of(data: Path, workers: int = 2, **settings: Any) -> Iterator[Fleet]:
    """A fleet whose workers have a root."""
    options = {
        "secret": SECRET,
        "worker_wait_s": 3.0,
        "heartbeat_s": 2.0,
        "code_wait_s": 1.5,
        **settings,
    }
    with private_fleet("tests.people:manager", **options) as fleet:
        for _ in range(workers):
            fleet.start_worker("--root", str(data))
        yield fleet


@contextmanager
def service_of(fleet: Fleet, data: Path) -> Iterator[Service]:
    """A jobs root for a test."""
    service = Service(fleet, data)
    try:
        yield service
    finally:
        service.close()
