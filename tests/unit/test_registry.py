import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pyrmute
import pytest
from pydantic import BaseModel

import tests.people
from pyrmute_tasks import ModelManager, ModelVersion
from pyrmute_tasks.errors import (
    InvalidVersionError,
    ManagerImportError,
    ModelNotFoundError,
    RegistrationError,
)
from pyrmute_tasks.pyrmute_adapter import adapt
from pyrmute_tasks.registry import is_loading, load_attribute, locate_attribute


@pytest.fixture
def module_file(tmp_path: Path) -> Iterator[Path]:
    before, modules = list(sys.path), set(sys.modules)
    yield tmp_path / "registry_test_module.py"
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_manager_is_named_by_module_or_file(module_file: Path) -> None:
    assert load_attribute("tests.people:manager") is tests.people.manager
    (module_file.parent / "registry_test_neighbour.py").write_text("VALUE = 7\n")
    module_file.write_text(
        "from registry_test_neighbour import VALUE\n"
        "from pyrmute_tasks.registry import is_loading\n"
        "class Holder:\n    inner = VALUE\n"
        "loading = is_loading()\n"
    )
    assert load_attribute(f"{module_file}:Holder.inner") == 7
    assert load_attribute(f"{module_file}:loading") is True
    assert not is_loading()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tests.people", "names no object"),
        (":manager", "names no object"),
        ("tests.people:", "names no object"),
        ("tests.nowhere:manager", "cannot import 'tests.nowhere:manager': ModuleNotFoundError"),
        ("tests.people:nobody", "'tests.people' has no attribute 'nobody'"),
        ("nowhere/file.py:manager", "there is no file"),
    ],
)
def test_unknown_name_is_reported(spec: str, message: str) -> None:
    with pytest.raises(ManagerImportError, match=message):
        load_attribute(spec)


def test_import_error_is_reported(module_file: Path) -> None:
    module_file.write_text("1 / 0\n")
    with pytest.raises(ManagerImportError, match="ZeroDivisionError: division by zero"):
        load_attribute(f"{module_file}:manager")


def test_file_with_a_taken_module_name_is_reported(tmp_path: Path, module_file: Path) -> None:
    (tmp_path / "json.py").write_text("manager = 1\n")
    with pytest.raises(ManagerImportError, match="the name 'json' belongs to another module") as e:
        load_attribute(f"{tmp_path / 'json.py'}:manager")
    assert str(tmp_path / "json.py") in str(e.value)
    assert str(Path(json.__file__)) in str(e.value)


def test_module_in_current_directory_comes_last(
    module_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(module_file.parent)
    module_file.write_text("thing = 7\n")
    assert load_attribute(f"{module_file.stem}:thing") == 7
    assert sys.path[-1] == str(module_file.parent)
    assert str(module_file.parent) not in sys.path[:-1]


def test_shadowed_module_in_current_directory_is_reported(
    module_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(module_file.parent)
    (module_file.parent / "json").mkdir()
    package = module_file.parent / "json" / "__init__.py"
    package.write_text("manager = 1\n")
    with pytest.raises(ManagerImportError, match="belongs to another module") as e:
        load_attribute("json:manager")
    assert str(package) in str(e.value)
    assert str(Path(json.__file__)) in str(e.value)


def test_an_object_is_found_under_its_name(module_file: Path) -> None:
    found = locate_attribute(tests.people.manager, prefer=["tests.people"])
    assert found == "tests.people:manager"
    module_file.write_text("thing = object()\n")
    thing = load_attribute(f"{module_file}:thing")
    assert locate_attribute(thing) == f"{module_file}:thing"


def test_an_object_of_the_script_is_found_by_the_scripts_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    script.thing = thing = object()  # type: ignore[attr-defined]  # a module's attribute
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert locate_attribute(thing) == f"{tmp_path / 'script.py'}:thing"


def test_object_without_a_name_is_reported() -> None:
    with pytest.raises(ManagerImportError, match="not an attribute of any module"):
        locate_attribute(object())


UNPRINTABLE = ["Per\nson", "\x1b[31mPerson", "Person\r", "Per\u2028son", "Per\u202eson", "\x00"]


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_a_name_with_control_characters_is_refused(name: str) -> None:
    manager = ModelManager()
    with pytest.raises(RegistrationError) as caught:
        manager.model(name, "1.0.0")(tests.people.PersonV1)
    assert str(caught.value).isprintable()
    with pytest.raises(RegistrationError):
        manager.migration(name, "1.0.0", "2.0.0")(tests.people.split_name)
    assert manager.list_models() == []
    with pytest.raises(ModelNotFoundError) as unknown:
        manager.get(name, "1.0.0")
    assert str(unknown.value).isprintable()
    foreign = pyrmute.ModelManager()
    foreign.model(name, "1.0.0")(tests.people.PersonV1)
    foreign.model(name, "2.0.0")(tests.people.PersonV2)
    with pytest.raises(RegistrationError):
        adapt(foreign).plan(name, "1.0.0", "2.0.0")


@pytest.mark.parametrize("version", ["1.0.0\n", "1.\x1b[0m0.0", "1.0.0\u2028", "1\t.0.0"])
def test_a_version_with_control_characters_is_refused(version: str) -> None:
    manager = ModelManager()
    with pytest.raises(InvalidVersionError) as caught:
        manager.model("Person", version)(tests.people.PersonV1)
    assert all(line.isprintable() for line in str(caught.value).split("\n", 1))
    assert manager.list_models() == []


def test_class_that_is_not_a_model_is_refused() -> None:
    with pytest.raises(
        RegistrationError, match="with Path, which is not a class of a pydantic model"
    ):
        ModelManager().model("User", "1.0.0")(cast("type[BaseModel]", Path))


def test_version_that_is_not_text_is_refused() -> None:
    version: Any = 1.0
    with pytest.raises(InvalidVersionError, match=r"Version must be text, as '1\.0\.0'"):
        ModelVersion.of(version)


def test_names_in_any_language_are_names() -> None:
    manager = ModelManager()
    for name in ("Größe", "顧客", "Order line", "🛒"):
        manager.model(name, "1.0.0")(tests.people.PersonV1)
    assert len(manager.list_models()) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys\nsys.exit(0)\n", r"SystemExit: 0 \(failing\.py:2\)"),
        ("\n1 / 0\n", r"ZeroDivisionError: division by zero \(failing\.py:2\)"),
    ],
)
def test_failing_module_is_reported_with_its_line(
    module_file: Path, text: str, reason: str
) -> None:
    path = module_file.with_name("failing.py")
    path.write_text(text)
    with pytest.raises(ManagerImportError, match=reason):
        load_attribute(f"{path}:manager")
