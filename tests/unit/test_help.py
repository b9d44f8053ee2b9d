"""``help()`` of every public name: its arguments, results, exceptions and use."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

import pydantic.json_schema
import pyrmute.types
import pytest

import pyrmute_tasks

MOST_USED: Final = (
    "Migrator",
    "Migrator.connect",
    "Migrator.embedded",
    "Migrator.migrate_batch",
    "Migrator.migrate_batch_streaming",
    "Migrator.migrate_file",
    "Migrator.submit",
    "ModelManager",
    "ModelManager.migrate",
    "ModelManager.migration",
    "ModelManager.model",
    "Retry",
    "Settings",
    "Stream",
    "in_thread",
    "record_index",
)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function, and every public method of a public class, with its name."""
    for name in pyrmute_tasks.__all__:
        found = getattr(pyrmute_tasks, name)
        if inspect.isfunction(found):
            yield name, found
        if not isinstance(found, type):
            continue
        for key in dir(found):
            member = inspect.getattr_static(found, key)
            function = getattr(member, "__func__", member)
            if key.startswith("_") or not inspect.isfunction(function):
                continue
            if function.__module__.startswith("pyrmute_tasks"):
                yield f"{name}.{key}", function


FUNCTIONS: Final = dict(functions())
CLASSES: Final = [
    name for name in pyrmute_tasks.__all__ if isinstance(getattr(pyrmute_tasks, name), type)
]


def doc_of(name: str) -> str:
    """Return the text of ``help``, also for a method documented in a base class."""
    owner, _, method = name.partition(".")
    found = getattr(pyrmute_tasks, owner)
    return inspect.getdoc(getattr(found, method) if method else found) or ""


def section(doc: str, title: str) -> str:
    """Return a section of a docstring; empty if there is none."""
    _, found, rest = f"\n{doc}".partition(f"\n{title}:\n")
    lines = rest.splitlines() if found else []
    ends = [n for n, line in enumerate(lines) if line and not line.startswith(" ")]
    return "\n".join(lines[: ends[0]] if ends else lines)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_names_arguments_and_results(name: str) -> None:
    doc, signature = doc_of(name), inspect.signature(FUNCTIONS[name])
    parameters = [each for each in signature.parameters if each not in {"self", "cls"}]
    taken = section(doc, "Args")
    assert [each for each in parameters if f"    {each}: " not in f"{taken}\n"] == []
    if signature.return_annotation not in {None, "None"}:
        assert section(doc, "Returns") or section(doc, "Yields")
    if re.search(r"^ +raise ", inspect.getsource(FUNCTIONS[name]), re.MULTILINE):
        assert section(doc, "Raises")


@pytest.mark.parametrize("name", CLASSES)
def test_help_of_a_class_names_its_fields(name: str) -> None:
    kind = getattr(pyrmute_tasks, name)
    doc = inspect.getdoc(kind) or ""
    assert kind.__doc__, "it has no text of its own"
    fields = getattr(kind, "__dataclass_fields__", {})
    listed = section(doc, "Attributes") + "\n" + section(doc, "Args")
    own = [key for key in fields if not key.startswith("_")]
    assert [key for key in own if f"    {key}: " not in listed] == []
    init = vars(kind).get("__init__")
    if inspect.isfunction(init) and not fields and init.__module__.startswith("pyrmute_tasks"):
        taken = [each for each in inspect.signature(init).parameters if each != "self"]
        assert [each for each in taken if f"    {each}: " not in listed] == []


@pytest.mark.parametrize("name", MOST_USED)
def test_help_of_the_most_used_has_an_example(name: str) -> None:
    assert "```python" in section(doc_of(name), "Example")


def test_values_and_aliases_are_known_to_typing() -> None:
    others = set(pyrmute_tasks.__all__) - set(CLASSES) - set(FUNCTIONS) - {"__version__"}
    for name in others:
        found = getattr(pyrmute_tasks, name)
        assert typing.get_origin(found) is not None or typing.get_args(found), name


# --- types --------------------------------------------------------------------------------


def classes_in(annotation: object) -> Iterator[type]:
    """Yield the classes of this package that an annotation names."""
    if isinstance(annotation, type) and annotation.__module__.startswith("pyrmute_tasks"):
        yield typing.get_origin(annotation) or annotation
    for part in typing.get_args(annotation):
        for each in part if isinstance(part, list) else [part]:
            yield from classes_in(each)


def returned() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every public function, method and property; a plan is not taken apart by users."""
    for name in CLASSES:
        for key, member in vars(getattr(pyrmute_tasks, name)).items():
            getter = member.fget if isinstance(member, property) else None
            if getter is not None and not key.startswith("_"):
                yield f"{name}.{key}", getter
    yield from FUNCTIONS.items()


# Names of other libraries that only type checkers import.
PYRMUTES: Final = {"pyrmute": pyrmute, **vars(pyrmute.types), **vars(pydantic.json_schema)}
RETURNED: Final = {name: each for name, each in returned() if not name.startswith("MigrationPlan.")}


@pytest.mark.parametrize("name", RETURNED)
def test_what_public_calls_return_is_exported(name: str) -> None:
    function = RETURNED[name]
    known = {key: getattr(pyrmute_tasks, key) for key in pyrmute_tasks.__all__}
    hints = typing.get_type_hints(function, function.__globals__, known | PYRMUTES)
    exported = set(known.values())
    assert [each for each in classes_in(hints.get("return")) if each not in exported] == []
