"""Wrong arguments are refused when they are given, and the error says what would be right."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyrmute
import pytest

from pyrmute_tasks import (
    AsyncMigrator,
    ConfigurationError,
    ManagerImportError,
    Migrator,
    ModelManager,
    ModelNotFoundError,
    RegistrationError,
    Settings,
)
from pyrmute_tasks.failures import describe_safely
from pyrmute_tasks.registry import load_attribute
from tests.people import manager, person
from tests.pyrmute_people import manager as pyrmutes

HOP = ("Person", "1.0.0", "3.0.0")
NAME = "tests.people:manager"
# What a type checker would refuse, too.
NUMBER: Any = 3
DICT: Any = {}
NONE: Any = None
MANAGER: Any = manager


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Migrator(NAME, retry=NUMBER), "retry must be a Retry, as retry=Retry"),
        (
            lambda: Migrator(NAME, window=NUMBER),
            r"window must be a Window, as window=Window\(chunks=16",
        ),
        (lambda: Migrator(NAME, settings=DICT), "settings must be a Settings"),
        (lambda: Migrator.embedded(NAME, retry=NUMBER), "retry must be a Retry"),
        (lambda: Migrator.connect(NAME, NONE), "not None; Migrator.embedded starts a fleet"),
        (lambda: Migrator.connect(NAME, ""), "broker_url .* is empty: give the URL"),
        (lambda: Settings(store_url="http://h"), "store_url http://h must begin with redis"),
        (lambda: AsyncMigrator(MANAGER), r"takes a Migrator, as AsyncMigrator\(Migrator.embedded"),
    ],
)
def test_options_of_another_kind_are_refused_at_once(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["redis://:geheim@h:6379/0", "amqp://u:geheim@h", "a/b:c", "..a:b"]
)
def test_what_names_no_manager_is_refused_without_its_password(name: str) -> None:
    with pytest.raises(ManagerImportError, match="names no object: write") as caught:
        load_attribute(name)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("from tests.people import manager\n\nmanager.model('A', '1')(int)\n", ":3)"),
        ("import json\n\n\ndef load():\n    json.loads('{')\n\nload()\n", ":5)"),
        ("import importlib\n\nimportlib.import_module('nowhere')\n", ":3)"),
        ("def broken(:\n", ", line 1)"),
    ],
    ids=["in this package", "in the standard library", "in importlib", "syntax"],
)
def test_the_users_line_is_named_if_importing_a_manager_fails(
    code: str, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = tmp_path / f"fails_{abs(hash(request.node.name))}.py"
    file.write_text(code)
    with pytest.raises(ManagerImportError) as caught:
        load_attribute(f"{file}:manager")
    assert str(caught.value).endswith(f"({file.name}{place}")


# --- models and versions --------------------------------------------------------------------


@pytest.mark.parametrize("given", [manager, pyrmutes], ids=["ours", "pyrmute's"])
@pytest.mark.parametrize(
    ("hop", "hint"),
    [
        (("Persn", "1.0.0", "3.0.0"), "registered models: Person"),
        (("Person", "1.0.0", "9.0.0"), "registered versions: 1.0.0, 2.0.0, 3.0.0"),
    ],
    ids=["model", "version"],
)
def test_what_is_registered_is_listed_before_a_fleet_starts(
    given: Any, hop: tuple[str, str, str], hint: str
) -> None:
    migrator = Migrator(given)
    with pytest.raises(ModelNotFoundError) as caught:
        migrator.migrate_batch([person(0)], *hop)
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint in caught.value.__notes__
    assert describe_safely(caught.value).endswith(caught.value.hint)
    assert migrator._jobs.session is None  # no fleet was started


def test_a_long_list_of_what_is_registered_is_cut() -> None:
    error = ModelNotFoundError("A").among(range(50))
    assert error.hint.endswith("18, 19 and 30 more")
    assert ModelNotFoundError("A").among(()).hint == "registered models: none"


async def asynchronous(record: Any) -> Any:
    return record


class Asynchronous:
    async def __call__(self, record: Any) -> Any:
        return record


@pytest.mark.parametrize("step", [3, asynchronous], ids=["number", "coroutine"])
def test_a_step_that_is_no_plain_function_is_refused(step: Any) -> None:
    pyrmute.ModelManager().migration("A", "1.0.0", "2.0.0")(step)  # fails with the first record
    with pytest.raises(RegistrationError, match="register a plain function that takes a dict"):
        ModelManager().migration("A", "1.0.0", "2.0.0")(step)


# --- calls ------------------------------------------------------------------------------------


@pytest.fixture(params=["manager", "migrator"])
def calls(request: pytest.FixtureRequest) -> Any:
    """Return what has the batch calls; without a fleet, which no such call starts."""
    return manager if request.param == "manager" else Migrator(NAME)


@pytest.mark.parametrize("target", ["Person", None, dict, 3], ids=str)
def test_a_target_type_that_is_no_model_is_refused(calls: Any, target: Any) -> None:
    message = "target_type must be a class of a pydantic model, not "
    with pytest.raises(ConfigurationError, match=message):
        calls.migrate_batch_as([person(0)], *HOP, target)
    with pytest.raises(ConfigurationError, match=message):
        calls.migrate_batch_streaming_as([person(0)], *HOP, target)
    with pytest.raises(ConfigurationError, match=message):
        manager.migrate_as(person(0), *HOP, target)


async def people() -> AsyncIterator[dict[str, Any]]:
    yield person(0)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (None, "got a NoneType"),
        (3, "got a int"),
        (people, "got a function; call it"),
        (people(), "asynchronous; use AsyncMigrator"),
        (io.StringIO("{}"), "an open file; migrate_file"),
    ],
    ids=["None", "number", "function", "asynchronous", "file"],
)
def test_what_yields_no_records_is_refused_before_a_stream_is_read(
    calls: Any, records: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        calls.migrate_batch_streaming(records, *HOP)


@pytest.mark.parametrize(
    "records", [None, people, person(0), "in.jsonl"], ids=["None", "function", "dict", "text"]
)
def test_an_asynchronous_stream_refuses_what_yields_no_records_at_once(records: Any) -> None:
    with pytest.raises(ConfigurationError, match="a batch takes an iterable of records"):
        AsyncMigrator(Migrator(NAME)).migrate_batch_streaming(records, *HOP)


@pytest.mark.parametrize("function", [asynchronous, Asynchronous()], ids=["function", "object"])
def test_asynchronous_observers_and_callbacks_are_refused(calls: Any, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="and not asynchronous ones"):
        calls.migrate_batch([person(0)], *HOP, observers=[function])
    with pytest.raises(ConfigurationError, match="not an asynchronous one"):
        calls.migrate_batch([{}], *HOP, on_error="skip", on_reject=function)


def closed() -> io.StringIO:
    file = io.StringIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (([person(0)], "out"), {}, "the source must be a path or an open file, not a list"),
        ((closed(), "out"), {}, "the source, <StringIO>, is a file that is closed"),
        ((io.StringIO(), None), {}, "the target must be a path or an open file, not a NoneType"),
        ((io.StringIO(), closed()), {}, "the target, <StringIO>, is a file that is closed"),
        (("in", "out"), {"rejects": io.StringIO()}, "rejects must be the path of a file, not a St"),
    ],
    ids=["list", "closed source", "None", "closed target", "rejects"],
)
def test_what_is_no_file_is_refused_before_a_fleet_starts(
    files: tuple[Any, Any],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("")
    migrator = Migrator(NAME)
    with pytest.raises(ConfigurationError, match=message):
        migrator.migrate_file(*files, *HOP, on_error="skip", **options)
    assert migrator._jobs.session is None
