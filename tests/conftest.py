"""Helpers of all tests: waiting for conditions, and finding leftovers."""

import contextlib
import gc
import importlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings
from packaging.version import Version

from pyrmute_tasks.engine import chunk_sizes

if TYPE_CHECKING:
    from tests.fleets import RabbitMQ

settings.register_profile("here", deadline=None)  # other programs may run, too
settings.register_profile("ci", derandomize=True, deadline=None)

# The fixture of all tests, and folders of those that wait for servers and so begin first.
_OF_ALL = "no_settings"
_FIRST = ("chaos", "integration", "contract", "acceptance", "differential")
# Files whose tests share fixtures and take longest in one process: they begin before all others.
_LONGEST = (
    # of `make test-slow`: minutes
    "tests/integration/test_topology_jobs.py",
    "tests/integration/test_resuming.py",
    "tests/integration/test_many_jobs.py",
    "tests/integration/test_rabbitmq.py",
    "tests/integration/test_steering_races.py",
    # of both: half a minute
    "tests/integration/test_signing.py",
    "tests/integration/test_coordinators.py",
    "tests/integration/test_hostile_messages.py",
)

ROOT = Path(__file__).parents[1]

_SETTING = re.compile("PYRMUTE_TASKS_|(CELERY|FLOWER)_|(APP|BROKER_URL|RESULT_BACKEND)$")


def strip_settings() -> dict[str, str]:
    """Remove the variables of this package, Celery and Flower from the environment; return them.

    Processes that are started later inherit none of it either.
    """
    found = {name: os.environ[name] for name in os.environ if _SETTING.match(name)}
    for name in found:
        del os.environ[name]
    return found


@pytest.fixture(scope="session", autouse=True)
def no_settings() -> Iterator[None]:
    """Hide the settings of whoever runs the tests."""
    found = strip_settings()
    yield
    os.environ.update(found)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect no garbage while modules are imported, and exempt what they leave ever after.

    It takes half of the time of a collection, in each process, and finds nothing.
    """
    gc.disable()
    try:
        if session.config.args_source is pytest.Config.ArgsSource.TESTPATHS:
            import_from_elsewhere(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def import_from_elsewhere(config: pytest.Config) -> None:
    """Import all tests, beginning in each test process with others.

    In a fresh clone each process would else compile all of them: all at once, in the same order.
    """
    process = getattr(config, "workerinput", None)  # of pytest-xdist
    if process is None:
        return
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "tests").rglob("test_*.py")
    )
    first = len(names) * int(process["workerid"].removeprefix("gw")) // process["workercount"]
    for name in names[first:] + names[:first]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection reports it
            importlib.import_module(name)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests that share a fleet in one process, and spread the others."""
    groups = [(item, shared_place(item)) for item in items]
    if config.pluginmanager.hasplugin("xdist"):
        for item, group in groups:
            if group and item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(group))
    # Those that wait come first: what is short fills the gaps at the end.
    items[:] = [item for item, _ in sorted(groups, key=lambda each: _turn(*each))]


def shared_place(item: pytest.Item) -> str:
    """Return the origin of the widest fixture that a test shares with others, if any."""
    found = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    places = [
        definitions[-1].baseid
        for name, definitions in found.items()
        if definitions[-1].scope in ("session", "module") and name != _OF_ALL
    ]
    if item.nodeid.startswith("tests/unit/"):
        places.append(item.nodeid.partition("::")[0])
    return min(filter(None, places), key=len, default="")


def _turn(item: pytest.Item, group: str) -> int:
    if item.nodeid.startswith(_LONGEST):
        return 0
    waits = tuple(f"tests/{folder}/" for folder in _FIRST)
    return 1 if group == "tests" or item.nodeid.startswith(waits) else 2


def version_info(package: str) -> tuple[int, ...]:
    """The version of an installed package, for comparison."""
    return Version(version(package)).release


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `condition` holds; fail with `what` if it does not in time."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.01
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {timeout_s:.0f} s: {what}"
        time.sleep(pause_s)
        pause_s = min(1.1 * pause_s, 0.04)  # most conditions ask a server


def is_ci() -> bool:
    """Whether everything that a test needs must be installed here."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


settings.load_profile("ci" if is_ci() else "here")


def cannot_run(message: str) -> NoReturn:
    """Skip a test that this machine cannot run, or fail it in CI."""
    if is_ci():
        pytest.fail(message)
    pytest.skip(message)


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    """The process ids below `pid`."""
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():  # each has its own children
            with contextlib.suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return [found for child in children for found in (child, *descendants(child))]


@pytest.fixture(scope="session")
def rabbitmq() -> "Iterator[RabbitMQ]":
    """One server for all tests of a process; tests may restart it, and must leave it running."""
    from tests.fleets import RabbitMQ  # those modules need this one

    with RabbitMQ() as server:
        yield server


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files that must be empty at the end."""
    # Short, because the path of a unix socket must be.
    directory = Path(tempfile.mkdtemp(prefix="pt-", dir="/tmp"))  # made private by mkdtemp
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    left = list(directory.iterdir())
    assert left == []
    directory.rmdir()


def shorten_ranges(patch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """Let files be cut into short ranges, so that small ones have several."""
    for name in ("_FIRST_RANGE_BYTES", "_LEAST_RANGE_BYTES", "_MOST_RANGE_BYTES"):
        patch.setattr(chunk_sizes, name, size_bytes)
    patch.setattr(chunk_sizes.RangeSizer, "_least_share", size_bytes)
