"""What every test may use: waiting on conditions, and seeing what is left behind."""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings
from packaging.version import Version

from pyrmute_tasks.engine import chunk_sizes

if TYPE_CHECKING:
    from tests.fleets import RabbitMQ

settings.register_profile("ci", derandomize=True, deadline=None)

# The fixture of all tests, and folders of those that wait for servers and so begin first.
_OF_ALL = "no_settings"
_FIRST = ("chaos", "integration", "contract", "acceptance", "differential")

ROOT = Path(__file__).parents[1]

_SETTING = re.compile("PYRMUTE_TASKS_|(CELERY|FLOWER)_|(APP|BROKER_URL|RESULT_BACKEND)$")


def strip_settings() -> dict[str, str]:
    """Remove from the environment what steers us, Celery or Flower; return what it was.

    Processes that are started later inherit none of it either.
    """
    found = {name: os.environ[name] for name in os.environ if _SETTING.match(name)}
    for name in found:
        del os.environ[name]
    return found


@pytest.fixture(scope="session", autouse=True)
def no_settings() -> Iterator[None]:
    """Let no test depend on what the one who runs it has set."""
    found = strip_settings()
    yield
    os.environ.update(found)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests that share a fleet run in one process, every other one where there is room."""
    groups = [(item, shared_place(item)) for item in items]
    if config.pluginmanager.hasplugin("xdist"):
        for item, group in groups:
            if group and item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(group))
    # Those that wait come first: what is short fills the gaps at the end.
    items[:] = [item for item, _ in sorted(groups, key=lambda each: _is_last(*each))]


def shared_place(item: pytest.Item) -> str:
    """Return where the widest fixture comes from that a test shares with others, if any."""
    found = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    places = [
        definitions[-1].baseid
        for name, definitions in found.items()
        if definitions[-1].scope in ("session", "module") and name != _OF_ALL
    ]
    if item.nodeid.startswith("tests/unit/"):
        places.append(item.nodeid.partition("::")[0])
    return min(filter(None, places), key=len, default="")


def _is_last(item: pytest.Item, group: str) -> bool:
    waits = tuple(f"tests/{folder}/" for folder in _FIRST)
    return group != "tests" and not item.nodeid.startswith(waits)


def version_info(package: str) -> tuple[int, ...]:
    """The version of a package that is installed here, to be compared."""
    return Version(version(package)).release


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `condition` holds; fail with `what` if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain until {what}"
        time.sleep(0.01)


def is_ci() -> bool:
    """Whether this runs where everything that a test needs must be there."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


if is_ci():
    settings.load_profile("ci")


def cannot_run(message: str) -> NoReturn:
    """Skip a test that needs what this machine has not, or fail it in CI."""
    if is_ci():
        pytest.fail(message)
    pytest.skip(message)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    """The process ids below `pid`."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]


@pytest.fixture(scope="session")
def rabbitmq() -> "Iterator[RabbitMQ]":
    """One server for all tests of a process; it may be restarted, but must be left running."""
    from tests.fleets import RabbitMQ  # those modules need this one

    with RabbitMQ() as server:
        yield server


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files that must be empty again at the end."""
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
