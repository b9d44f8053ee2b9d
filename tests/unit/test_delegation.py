"""Calls delegated to pyrmute, with the models and steps registered here."""

import ast
import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyrmute
import pytest
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

import pyrmute_tasks
from pyrmute_tasks import (
    InvalidVersionError,
    MetricsHook,
    MigrationError,
    ModelData,
    ModelManager,
    ModelNotFoundError,
    ModelVersion,
    VersionedModelError,
)
from pyrmute_tasks.errors import as_ours
from pyrmute_tasks.hooks import HookCounts, HookSet, use_hooks
from pyrmute_tasks.pyrmute_adapter import adapt
from pyrmute_tasks.wire.remote_errors import put_together, take_apart
from tests.conftest import ROOT

SHARED_ERRORS: Final = (
    "InvalidVersionError",
    "MigrationError",
    "ModelNotFoundError",
    "VersionedModelError",
)
AnyManager = Any  # one of ours, or of pyrmute's


class Place(BaseModel):
    city: str


class UserV1(BaseModel):
    name: str
    place: Place


class UserV2(BaseModel):
    """A user."""

    name: str
    place: Place
    age: int = 7


class PlaceV2(BaseModel):
    city: str
    country: str = "?"


class UserV3(BaseModel):
    name: str
    place: PlaceV2
    age: int = 7


def rename(data: ModelData) -> ModelData:
    return {**data, "name": data["name"].upper()}


def add_title(schema: pyrmute.JsonSchema) -> pyrmute.JsonSchema:
    return {**schema, "title": f"{schema['title']}!"}


def fill(manager: AnyManager) -> None:
    manager.model("Place", "1.0.0", True)(Place)
    manager.model("User", "1.0.0")(UserV1)
    manager.model("User", "2.0.0", backward_compatible=True)(UserV2)
    manager.migration("User", "1.0.0", "2.0.0")(rename)
    manager.schema_transformer("User", "2.0.0")(add_title)


@pytest.fixture
def ours() -> ModelManager:
    manager = ModelManager()
    fill(manager)
    return manager


@pytest.fixture
def theirs() -> pyrmute.ModelManager:
    manager = pyrmute.ModelManager()
    fill(manager)
    return manager


def written(dump: Callable[[Path], object], folder: Path) -> tuple[object, dict[str, str]]:
    """Return a call's result and the files it writes."""
    folder.mkdir()
    returned = dump(folder)
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return returned, {str(path.relative_to(folder)): path.read_text() for path in found}


# --- what it answers ----------------------------------------------------------------------

QUESTIONS: Final[dict[str, Callable[[AnyManager], object]]] = {
    "diff": lambda manager: manager.diff("User", "1.0.0", "2.0.0"),
    "schema": lambda manager: manager.get_schema("User", "2.0.0"),
    "schema with options": lambda manager: manager.get_schema(
        "User", "2.0.0", pyrmute.SchemaConfig(mode="serialization"), apply_transformers=False
    ),
    "transformers": lambda manager: manager.get_schema_transformers("User", "2.0.0"),
    "avro": lambda manager: manager.get_avro_schema("User", "2.0.0", "com.shop", False, True),
    "protobuf": lambda manager: manager.get_proto_schema("User", "2.0.0", "com.shop", False, False),
    "typescript": lambda manager: manager.get_typescript_schema(
        "User", "2.0.0", "zod", {"date_format": "timestamp"}
    ),
}
DUMPS: Final[dict[str, Callable[[AnyManager, Path], object]]] = {
    "schemas": lambda manager, folder: manager.dump_schemas(folder),
    "separate schemas": lambda manager, folder: manager.dump_schemas(
        folder, 4, True, "https://x/{model}_v{version}.json", pyrmute.SchemaConfig(by_alias=False)
    ),
    "avro": lambda manager, folder: manager.dump_avro_schemas(folder, "com.shop", 3, False, True),
    "protobuf": lambda manager, folder: manager.dump_proto_schemas(folder, "shop", False, False),
    "typescript": lambda manager, folder: manager.dump_typescript_schemas(
        folder, "type", {"enum_style": "enum"}, "major_version", False
    ),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_delegated_call_answers_as_pyrmute(
    ask: Callable[[AnyManager], object], ours: ModelManager, theirs: pyrmute.ModelManager
) -> None:
    assert ask(ours) == ask(theirs)


@pytest.mark.parametrize("dump", DUMPS.values(), ids=DUMPS)
def test_delegated_call_writes_as_pyrmute(
    dump: Callable[[AnyManager, Path], object],
    ours: ModelManager,
    theirs: pyrmute.ModelManager,
    tmp_path: Path,
) -> None:
    expected = written(lambda folder: dump(theirs, folder), tmp_path / "theirs")
    assert len(expected[1]) >= 3
    assert written(lambda folder: dump(ours, folder), tmp_path / "ours") == expected


def test_signatures_accept_pyrmutes_arguments() -> None:
    for name, theirs in vars(pyrmute.ModelManager).items():
        if name.startswith("_") and name != "__init__":
            continue
        wanted = inspect.signature(theirs).parameters.values()
        found = list(inspect.signature(getattr(ModelManager, name)).parameters.values())
        for ours, each in zip(found, wanted, strict=False):
            assert (ours.name, ours.kind) == (each.name, each.kind), name
            if each.name != "chunk_size":  # which is chosen here if it is not given
                assert ours.default == each.default, name
        assert len(found) >= len(wanted), name


def test_versions_may_be_objects(ours: ModelManager) -> None:
    version = ModelVersion(2, 0, 0)
    assert ours.get_schema("User", version) == ours.get_schema("User", "2.0.0")


def test_later_registrations_are_known(ours: ModelManager) -> None:
    assert "User" in ours.as_pyrmute().list_models()
    ours.model("User", "3.0.0")(UserV2)
    assert ours.diff("User", "2.0.0", "3.0.0").unchanged_fields
    assert ours.as_pyrmute() is ours.as_pyrmute()


def test_mirrored_manager_migrates_too(ours: ModelManager) -> None:
    record = {"name": "Ada", "place": {"city": "London"}}
    hop = ("User", "1.0.0", "2.0.0")
    assert ours.as_pyrmute().migrate(record, *hop) == ours.migrate(record, *hop)


def test_schema_settings_are_pyrmutes() -> None:
    class Titled(GenerateJsonSchema):
        def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
            return {**super().generate(schema, mode), "x-company": "Shop"}

    def of(manager: AnyManager) -> list[object]:
        fill(manager)
        told = [manager.get_schema("User", "2.0.0")]
        manager.set_default_schema_generator(Titled)
        told.append(manager.get_schema("User", "2.0.0"))
        manager.clear_schema_transformers("User", "1.0.0")
        told.append(manager.get_schema_transformers("User", "2.0.0"))
        manager.clear_schema_transformers()
        return [*told, manager.get_schema_transformers("User", "2.0.0")]

    ours = of(ModelManager(pyrmute.SchemaConfig(mode="serialization")))
    theirs = of(pyrmute.ModelManager(pyrmute.SchemaConfig(mode="serialization")))
    assert ours == theirs
    assert [bool(each) for each in ours] == [True, True, True, False]


def test_invalid_versions_are_reported_at_once(ours: ModelManager) -> None:
    with pytest.raises(InvalidVersionError):
        ours.schema_transformer("User", "two")
    with pytest.raises(InvalidVersionError):
        ours.clear_schema_transformers("User", "two")


# --- without pyrmute ----------------------------------------------------------------------

MODELS: Final = """
import sys
sys.modules["pyrmute"] = None  # as if it were missing
from pydantic import BaseModel
from pyrmute_tasks import MissingExtraError, ModelManager

manager = ModelManager()

@manager.model("User", "1.0.0", enable_ref=True)
class UserV1(BaseModel):
    name: str

@manager.schema_transformer("User", "1.0.0")
def titled(schema):
    return schema

assert manager.migrate({"name": "Ada"}, "User", "1.0.0", "1.0.0") == UserV1(name="Ada")
"""


def run(program: str) -> str:
    """Run a program in a fresh interpreter and return its output."""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("use", "what"),
    [
        ("manager.diff('User', '1.0.0', '1.0.0')", "ModelManager.diff"),
        ("manager.dump_schemas('.')", "ModelManager.dump_schemas"),
        ("from pyrmute_tasks import SchemaConfig", "SchemaConfig"),
        ("from pyrmute_tasks.types import JsonSchema", "JsonSchema"),
        ("import pyrmute_tasks.avro_schema", "pyrmute_tasks.avro_schema"),
        (
            "from pyrmute_tasks.cli.models import diff\n    diff._pyrmutes()",
            "pyrmute-tasks diff",
        ),
    ],
)
def test_without_pyrmute_the_extra_is_named(use: str, what: str) -> None:
    program = f"{MODELS}\ntry:\n    {use}\nexcept MissingExtraError as error:\n    print(error)"
    assert run(program) == (
        f"{what} comes from pyrmute, and pyrmute is not installed: "
        "python -m pip install 'pyrmute-tasks[pyrmute]'\n"
    )


def test_package_works_without_pyrmute() -> None:
    run(
        f"{MODELS}\nfrom pyrmute_tasks import *\n"
        "import pyrmute_tasks.exceptions, pyrmute_tasks.model_manager\n"
        "from pyrmute_tasks.model_version import ModelVersion\n"
        "from pyrmute_tasks.migration_hooks import MetricsHook\n"
        "from pyrmute_tasks.migration_testing import MigrationTestCases\n"
        "from pyrmute_tasks.types import MigrationFunc, ModelData, NestedModelInfo\n"
        "assert not hasattr(pyrmute_tasks.types, '__wrapped__')\n"
    )


def test_pyrmute_is_imported_when_it_is_asked() -> None:
    program = MODELS.replace("sys.modules", "dict()")
    assert run(f"{program}\nprint('pyrmute' in sys.modules)") == "False\n"
    asked = "manager.get_schema('User', '1.0.0')\nprint('pyrmute' in sys.modules)"
    assert run(f"{program}\n{asked}") == "True\n"


# --- names --------------------------------------------------------------------------------


def test_every_name_of_pyrmute_is_here() -> None:
    for name in pyrmute.__all__:
        assert hasattr(pyrmute_tasks, name), name


def test_delegated_names_are_pyrmutes_own_and_known_to_type_checkers() -> None:
    typed = {
        alias.name
        for node in ast.walk(ast.parse(Path(inspect.getfile(pyrmute_tasks)).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "pyrmute"
        for alias in node.names
    }
    assert typed == pyrmute_tasks._PYRMUTES
    for name in typed:
        assert getattr(pyrmute_tasks, name) is getattr(pyrmute, name)
    assert not typed & set(pyrmute_tasks.__all__)


def test_every_public_module_of_pyrmute_is_here() -> None:
    for path in Path(inspect.getfile(pyrmute)).parent.glob("[!_]*.py"):
        theirs = importlib.import_module(f"pyrmute.{path.stem}")
        ours = importlib.import_module(f"pyrmute_tasks.{path.stem}")
        for name, value in vars(theirs).items():
            if getattr(value, "__module__", "") == theirs.__name__ and not name.startswith("_"):
                assert hasattr(ours, name), f"{path.stem}.{name}"
    with pytest.raises(AttributeError):
        importlib.import_module("pyrmute_tasks.types").Nothing  # noqa: B018  # that is the test


# --- errors -------------------------------------------------------------------------------


def test_delegated_errors_are_of_both_libraries(ours: ModelManager) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        ours.get_schema("User", "9.0.0")
    assert isinstance(caught.value, pyrmute.ModelNotFoundError)
    assert (caught.value.name, caught.value.version) == ("User", "9.0.0")
    with pytest.raises(InvalidVersionError) as invalid:
        ours.diff("User", "one", "2.0.0")
    assert isinstance(invalid.value, pyrmute.InvalidVersionError)


@pytest.mark.parametrize("name", SHARED_ERRORS)
def test_our_error_is_caught_as_pyrmutes(name: str) -> None:
    ours, theirs = getattr(pyrmute_tasks, name), getattr(pyrmute, name)
    error = ours("User") if name != "MigrationError" else ours("User", "1.0.0", "2.0.0", "because")
    with pytest.raises(theirs):
        raise error
    assert type(error) is ours
    assert isinstance(error, pyrmute.VersionedModelError)
    assert type(pickle.loads(pickle.dumps(error))) is ours  # noqa: S301  # made a moment ago
    assert type(put_together(take_apart(error))) is ours


def test_other_errors_are_unchanged() -> None:
    assert not isinstance(pyrmute_tasks.RegistrationError("no"), pyrmute.VersionedModelError)
    error = ValueError("no")
    assert as_ours(error) is error

    class Special(pyrmute.MigrationError):
        pass

    special = Special("User", "1.0.0", "2.0.0")
    assert as_ours(special) is special


def test_pyrmutes_error_is_converted_with_its_attributes() -> None:
    error = pyrmute.MigrationError("User", "1.0.0", "2.0.0", "because")
    error.__cause__ = KeyError("name")
    error.add_note("record 7")
    ours = as_ours(error)
    assert type(ours) is MigrationError
    assert (str(ours), ours.reason, ours.__notes__) == (str(error), "because", ["record 7"])
    assert ours.__cause__ is error.__cause__


@pytest.mark.parametrize(
    "order", ["pyrmute, pyrmute_tasks.errors", "pyrmute_tasks.errors, pyrmute"]
)
def test_order_of_imports_does_not_matter(order: str) -> None:
    run(
        f"import {order}\n"
        "from pyrmute_tasks import MigrationError, ModelManager\n"
        "class Own(MigrationError): pass\n"
        "for raised in (lambda: ModelManager().get('User', '1.0.0'), lambda: 1 / 0):\n"
        "    try: raised()\n"
        "    except pyrmute.ModelNotFoundError as error: assert error.name == 'User'\n"
        "    except ZeroDivisionError: pass\n"
        "assert isinstance(Own('User', '1.0.0', '2.0.0'), pyrmute.MigrationError)\n"
    )


def test_user_error_may_have_pyrmutes_base_class_first() -> None:
    run(
        "import pyrmute_tasks.errors, pyrmute\n"
        "from pyrmute_tasks import MigrationError, ModelNotFoundError\n"
        "class Both(pyrmute.MigrationError, MigrationError): pass\n"
        "assert str(MigrationError('User', '1.0.0', '2.0.0'))\n"
        "assert isinstance(ModelNotFoundError('User'), pyrmute.ModelNotFoundError)\n"
    )


def test_error_that_another_process_sent_is_caught_as_pyrmutes() -> None:
    error = ModelNotFoundError("User")
    for sent, read in (
        (pickle.dumps(error), "pickle.loads"),
        (take_apart(error), "put_together"),
    ):
        run(
            "import pickle, pyrmute_tasks.errors\n"
            "from pyrmute_tasks.wire.remote_errors import put_together\n"
            f"import pyrmute\nassert isinstance({read}({sent!r}), pyrmute.ModelNotFoundError)\n"
        )


def test_all_errors_derive_from_one(ours: ModelManager) -> None:
    with pytest.raises(VersionedModelError):
        ours.get_avro_schema("Nobody", "1.0.0")


# --- hooks --------------------------------------------------------------------------------


class Loud(pyrmute.MetricsHook):
    def before_migrate(self, *arguments: Any) -> None:
        super().before_migrate(*arguments)


def test_pyrmutes_metrics_hook_counts_in_processes(ours: ModelManager) -> None:
    hook, own = pyrmute.MetricsHook(), MetricsHook()
    ours.add_hook(hook)  # type: ignore[arg-type]  # it has the same methods
    ours.add_hook(own)
    records = [{"name": "Ada", "place": {"city": "London"}} for _ in range(5)]
    hop = ("User", "1.0.0", "2.0.0")
    ours.migrate_batch(records, *hop)
    assert hook.total_count == own.total_count == 5
    ours.migrate_batch(records, *hop, parallel=True, max_workers=2)
    with pytest.raises(MigrationError):
        ours.migrate_batch([{}], *hop)
    assert vars(hook) == vars(own)
    assert (hook.total_count, hook.error_count) == (11, 1)


def test_only_hooks_that_just_count_get_counts() -> None:
    loud, plain = Loud(), pyrmute.MetricsHook()
    hooks: Any = HookSet([loud, plain])  # type: ignore[list-item]  # they have the same methods
    assert hooks.live == (loud,)
    counts = HookCounts()
    counts.before_migrate("User")
    counts.on_error("User")
    hooks.merge(counts)
    assert (plain.total_count, plain.error_count, loud.total_count) == (1, 1, 0)


def test_hooks_of_a_pyrmute_manager_are_counted_per_chunk(theirs: pyrmute.ModelManager) -> None:
    theirs.model("Place", "2.0.0", backward_compatible=True)(PlaceV2)
    theirs.model("User", "3.0.0", backward_compatible=True)(UserV3)
    hook, counts = pyrmute.MetricsHook(), HookCounts()
    theirs.add_hook(hook)
    manager = adapt(theirs)
    plan = manager.plan("User", "2.0.0", "3.0.0", observe=True)
    assert manager.plan("User", "2.0.0", "3.0.0", observe=True) is plan
    with use_hooks((counts,)):
        done, failure = plan.migrate([{"name": "Ada", "place": {"city": "London"}}])
    assert (len(done), failure) == (1, None)
    assert counts.migrations == hook.migrations_by_model == {"User": 1, "Place": 1}
    manager.hooks.merge(counts)
    assert hook.migrations_by_model == {"User": 2, "Place": 2}


def named(data: ModelData) -> ModelData:
    return {**data, "named": True}


@pytest.mark.parametrize("is_used", [True, False])
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda manager: pickle.loads(pickle.dumps(manager))],  # noqa: S301  # its own
    ids=["shallow", "deep", "pickled"],
)
def test_managers_can_be_copied_as_pyrmutes(
    copied: Callable[[ModelManager], ModelManager], is_used: bool
) -> None:
    hop = ("Place", "1.0.0", "2.0.0")
    manager = ModelManager()
    manager.model("Place", "1.0.0")(PlaceV2)
    manager.model("Place", "2.0.0")(PlaceV2)
    manager.migration(*hop)(named)
    manager.add_hook(MetricsHook())
    manager.clear_schema_transformers("Place")
    if is_used:
        manager.migrate_data({"city": "London"}, *hop)
        manager.diff(*hop)
    other = copied(manager)
    assert other.migrate_data({"city": "London"}, *hop) == {"city": "London", "named": True}
    assert other.diff(*hop) == manager.diff(*hop)
    assert other.plan(*hop).fingerprint == manager.plan(*hop).fingerprint
    other.model("Place", "3.0.0", backward_compatible=True)(PlaceV2)
    if copied is not copy.copy:  # which shares what is registered
        assert [str(version) for version in manager.list_versions("Place")] == ["1.0.0", "2.0.0"]


def test_registration_that_pyrmute_refuses_is_told_each_time() -> None:
    manager = ModelManager()
    manager.model("Place", "1.0.0")(PlaceV2)
    manager._mirror.note("no_such_method")
    for _ in range(2):
        with pytest.raises(AttributeError, match="no_such_method"):
            manager.get_schema("Place", "1.0.0")
