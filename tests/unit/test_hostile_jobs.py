"""Jobs whose files are odd: every command says so in one sentence, and other jobs are unharmed.

The cases are drawn from a fixed seed. Draw more, by another ``SEED`` and more ``CASES``, when a
reader of these files changes.
"""

import errno
import json
import logging
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import click
import pytest
from click.testing import CliRunner

from pyrmute_tasks.cli.job_list import jobs_command
from pyrmute_tasks.cli.job_report import rejects_command, report_command
from pyrmute_tasks.cli.job_status import status_command, watch_command
from pyrmute_tasks.cli.jobs import discard_command, publish_command, verify_command
from pyrmute_tasks.cli.retry import retry_command
from pyrmute_tasks.cli.steer import cancel_command, pause_command, resume_command, set_command
from pyrmute_tasks.jobs.entries import JobResult, Note, Settled
from pyrmute_tasks.jobs.now import read_now
from pyrmute_tasks.jobs.output import digest_of
from pyrmute_tasks.jobs.root import JobsRoot
from pyrmute_tasks.service.coordinator import Coordinator
from pyrmute_tasks.service.probing import Probed
from pyrmute_tasks.settings import Settings
from tests.unit.watched_jobs import SOURCE_BYTES, WatchedJob

JOB: Final = "badbad00"
SEED: Final = 1
CASES: Final = 6
DELETED: Final = object()
GONE: Final = {"pid": 2**22 + 5, "started": "1"}

LOOKS: Final[list[tuple[click.Command, tuple[str, ...]]]] = [
    (jobs_command, ()),
    (jobs_command, ("--json", "--all")),
    (status_command, (JOB,)),
    (status_command, ("bad", "--json")),
    (watch_command, (JOB,)),
    (report_command, (JOB,)),
    (report_command, (JOB, "--json")),
    (rejects_command, (JOB,)),
    (verify_command, (JOB,)),
]
CHANGES: Final[list[tuple[click.Command, tuple[str, ...]]]] = [
    (pause_command, (JOB, "--why", "lunch")),
    (resume_command, (JOB,)),
    (set_command, (JOB, "--max-rate", "5")),
    (cancel_command, (JOB,)),
    (publish_command, (JOB, "--why", "release")),
    (retry_command, (JOB, "--manager", "tests.people:manager")),
    (discard_command, (JOB, "--why", "odd")),
]


def gone(root: Path) -> WatchedJob:
    return submitted(root).taken(**GONE).settle(3).tells(records=5, causes={"KeyError": 1})


def held(root: Path) -> WatchedJob:
    job = submitted(root, hold=True).taken()
    assert job.lease is not None
    put = job.lease.log.put(b"o\n" * 10)
    settled = Settled(0, 0, SOURCE_BYTES, 10, 10, put=put, digest=digest_of(b"o\n" * 10))
    job.lease.log.settle(settled)
    return job.tells(records=3).let_go("held", Note.HELD)


def failed(root: Path) -> WatchedJob:
    return submitted(root).taken().reject([KeyError("x")]).tells().ended(JobResult.FAILED, "why")


def succeeded(root: Path) -> WatchedJob:
    job = submitted(root).taken().reject([KeyError("x")])
    return job.ended(JobResult.SUCCEEDED_WITH_REJECTS)


def submitted(root: Path, **terms: Any) -> WatchedJob:
    return WatchedJob.submitted(root, JOB, name="bad", on_end="true", **terms)


MAKERS: Final = (submitted, gone, held, failed, succeeded)
FILES: Final = ("spec.json", "want.json", "now.json", "log.1", "log.7", "rejects.1")
WHOLE: Final[dict[str, Callable[[Path], object]]] = {
    "folder": Path.mkdir,
    "empty": Path.touch,
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(3000)),
    "lines": lambda path: path.write_bytes(b"no\nlog\nof\nours\n"),
    "no UTF-8": lambda path: path.write_bytes(b'{"format": 2, "wish": "\xff\xfe"}\n'),
    "deep": lambda path: path.write_bytes(b"[" * 200_000),
    "NaN": lambda path: path.write_bytes(b'{"format": NaN, "at": NaN, "epoch": NaN}\n'),
    "huge": lambda path: path.write_bytes(b'{"format": 1e999, "at": 1e999}\n'),
    "many digits": lambda path: path.write_bytes(b'{"format": ' + b"9" * 5000 + b"}\n"),
    "a list": lambda path: path.write_bytes(b"[1]\n"),
    "1 MiB": lambda path: path.write_text(json.dumps({"format": 2, "why": "x" * (1 << 20)})),
    "loop": lambda path: path.symlink_to(path),
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
    "pipe": os.mkfifo,
}
VALUES: Final[tuple[Any, ...]] = (
    *(None, [], {}, "x", -1, 1e308, 10**400, 2**70, float("nan"), float("inf"), True, "\ud800"),
    *("/dev/a\nb\x1b[31m", [1], {"a": 1}, "/dev/\0", 1.5, "", "/dev/null/\udcff", DELETED),
)


def places(found: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the parts of a JSON value are."""
    inside = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in inside:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def damage(folder: Path, rng: random.Random) -> str:
    """Damage one file, or one value in it; return what was done."""
    name = rng.choice(FILES)
    path = folder / name
    if name.endswith(".json") and path.exists() and rng.random() < 0.7:
        found = json.loads(path.read_text())
        place, value = rng.choice(list(places(found))), rng.choice(VALUES)
        part = found
        for key in place[:-1]:
            part = part[key]
        if value is DELETED:
            del part[place[-1]]
        else:
            part[place[-1]] = value
        path.write_text(json.dumps(found))
        return f"{name}: {place} = {value!r:.30}"
    how = rng.choice(list(WHOLE))
    path.unlink(missing_ok=True)
    WHOLE[how](path)
    return f"{name}: {how}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyrmute_tasks.cli.job_status.time.sleep", interrupt)
    monkeypatch.chdir(tmp_path)


def call(root: Path, command: click.Command, *arguments: str) -> tuple[int, str]:
    """Call a command: it ends by itself, and a failure is one sentence."""
    done = CliRunner().invoke(command, [*arguments, "--jobs", str(root)])
    told = f"{command.name}: {done.output}"
    assert done.exception is None or isinstance(done.exception, SystemExit), (told, done.exception)
    assert done.exit_code in (0, 1, 3, 130), told
    if done.exit_code == 1 and command is not watch_command:
        assert done.output.startswith("error: "), told
        assert done.output.count("\n") == 1, told
    return done.exit_code, done.output


class Probe:
    """A fleet that was looked at."""

    looked_at = 1e12

    def __init__(self, trouble: str) -> None:
        self.seen = Probed(frozenset(), trouble, 0.0)

    def want(self) -> None:
        """Do nothing."""

    def forget(self, job: str, epoch: int) -> None:
        """Do nothing."""


def look_twice(root: Path) -> Coordinator:
    """Let a coordinator without workers do what is due, twice."""
    settings = Settings(broker_url="redis://127.0.0.1:1/0")
    session: Any = SimpleNamespace(settings=settings, fleet=None)
    coordinator = Coordinator(JobsRoot(root), settings, session=session)
    probe: Any = Probe("no worker answers")
    for _ in range(2):
        coordinator._round(probe)
        for running in list(coordinator._running.values()):
            assert isinstance(running.thread, threading.Thread)
            running.thread.join()
    return coordinator


@pytest.mark.parametrize("make", MAKERS)
def test_commands_and_coordinators_stand_odd_files(
    tmp_path: Path, make: Callable[[Path], WatchedJob], caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(f"{SEED} {make.__name__}")
    for number in range(CASES):
        root = tmp_path / str(number) / "jobs"
        root.parent.mkdir()
        make(root)
        good = WatchedJob.submitted(root, "good0000", name="good").taken().settle(2)
        good.let_go("its turn is over")
        done = damage(root / JOB, rng)
        with caplog.at_level(logging.INFO):
            try:
                for command, arguments in LOOKS:
                    told = call(root, command, *arguments)[1]
                    assert command is not jobs_command or "good0000" in told
                command, arguments = rng.choice(CHANGES)
                call(root, command, *arguments)
                coordinator = look_twice(root)
                assert "good0000" in coordinator._jobs.open
                assert good.folder.view().is_suspended
                assert "could not be driven" not in caplog.text
            except BaseException as error:
                error.add_note(f"{make.__name__}, {done}")
                raise
        shutil.rmtree(root.parent)


@pytest.mark.parametrize(("command", "arguments"), CHANGES)
@pytest.mark.parametrize("name", ["log.1", "log.7", "spec.json"])
def test_folder_in_the_place_of_a_file_is_named(
    tmp_path: Path, name: str, command: click.Command, arguments: tuple[str, ...]
) -> None:
    path = failed(tmp_path / "jobs").folder.path / name
    path.unlink(missing_ok=True)
    path.mkdir()
    status, told = call(tmp_path / "jobs", command, *arguments)
    if command is discard_command:
        assert status == 0
        return
    assert (status, told) == (1, f"error: {path} cannot be read: Is a directory\n")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("spec.json", "created_at", None),
        ("spec.json", "created_at", 10**400),
        ("spec.json", "target", 1.5),
        ("spec.json", "options", 1),
        ("spec.json", "job", {"a": 1}),
        ("spec.json", "plan", ["User", "1.0.0", [1]]),
        ("spec.json", "format", float("inf")),
        ("want.json", "max_rate", 10**400),
        ("want.json", "at", 1e300),
        ("want.json", "why", "\ud800"),
        ("now.json", "causes", 0),
        ("now.json", "records", "many"),
    ],
)
def test_value_that_makes_no_sense_is_found_by_all(
    tmp_path: Path, name: str, field: str, value: object
) -> None:
    path = gone(tmp_path / "jobs").folder.path / name
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    WatchedJob.submitted(tmp_path / "jobs", "good0000")
    for command, arguments in (*LOOKS, *CHANGES):
        told = call(tmp_path / "jobs", command, *arguments)[1]
        assert command is not jobs_command or "good0000" in told


def test_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = failed(tmp_path / "jobs").folder.path / "log.1", os.open

    def refuse(name: Any, *others: Any, **more: Any) -> int:
        if os.fspath(name) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(name, *others, **more)

    monkeypatch.setattr(os, "open", refuse)  # root may do all
    for command, arguments in (*LOOKS[2:], *CHANGES):
        status, told = call(tmp_path / "jobs", command, *arguments)
        assert status == 1
        assert f"{path}" in told or "cannot be read: Permission denied" in told
    assert "job badbad00 cannot be read" in call(tmp_path / "jobs", jobs_command)[1]


def test_pipe_in_the_place_of_what_a_driver_tells_is_not_waited_for(tmp_path: Path) -> None:
    path = gone(tmp_path / "jobs").folder.path
    (path / "now.json").unlink()
    os.mkfifo(path / "now.json")
    assert read_now(path) is None


def test_name_that_is_no_utf8_can_be_shown(tmp_path: Path) -> None:
    path = failed(tmp_path / "jobs").folder.path / "spec.json"
    target = f"{tmp_path}/\udcff"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": target}))
    assert call(tmp_path / "jobs", status_command, JOB)[0] == 0
    for command in (jobs_command, status_command, report_command):
        arguments = () if command is jobs_command else (JOB,)
        status, told = call(tmp_path / "jobs", command, *arguments, "--json")
        found = json.loads(told)
        assert (status, found.get("status", found)["target"]) == (0, target)


def test_coordinator_that_may_not_write_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", ".lease.5e1f")

    root = tmp_path / "jobs"
    job = WatchedJob.submitted(root, "good0000").folder.path
    monkeypatch.setattr("pyrmute_tasks.service.coordinator.beat", refuse)
    monkeypatch.setattr("pyrmute_tasks.service.coordinator.take_epoch", refuse)
    with caplog.at_level(logging.INFO):
        look_twice(root)
    told = [record.getMessage() for record in caplog.records]
    assert [each for each in told if each.startswith("it cannot write")] == [
        f"it cannot write to the jobs root {root}: Permission denied; jobs that it may not write "
        "are driven by others only"
    ]
    assert f"it cannot be driven: {job}: Permission denied (job=good0000)" in told
