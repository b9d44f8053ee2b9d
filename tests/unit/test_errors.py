"""Every exception of the package is exported, and pickles with all its attributes."""

import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from types import FunctionType

import pytest

import pyrmute_tasks
from pyrmute_tasks import PyrmuteTasksError, errors
from pyrmute_tasks.engine import events


def every_error() -> list[type[PyrmuteTasksError]]:
    """Return the base and all its subclasses, in whichever module of the package they are."""
    for module in pkgutil.walk_packages(pyrmute_tasks.__path__, "pyrmute_tasks."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind: type[PyrmuteTasksError]) -> Iterator[type[PyrmuteTasksError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__.startswith("pyrmute_tasks."):
                yield from below(child)

    return sorted(set(below(PyrmuteTasksError)), key=lambda kind: kind.__name__)


ERRORS = every_error()


def parameters(kind: type[PyrmuteTasksError]) -> dict[str, object]:
    """Return values for the class's own parameters; empty if it only takes a text."""
    if not isinstance(kind.__init__, FunctionType):
        return {}
    taken = inspect.signature(kind).parameters.values()
    return {
        each.name: number + 2 if each.annotation is int else f"<{each.name}>"
        for number, each in enumerate(taken)
    }


def example(kind: type[PyrmuteTasksError]) -> PyrmuteTasksError:
    return kind(*parameters(kind).values() or ("what happened",))


def name(kind: type[BaseException]) -> str:
    return kind.__name__


def test_the_walk_finds_errors_of_every_package() -> None:
    found = {name(kind) for kind in ERRORS}
    assert {"RemoteError", "SignatureError", "JobLostError"} <= found
    assert len(found) >= 25


@pytest.mark.parametrize("kind", [k for k in ERRORS if not k.__name__.startswith("_")], ids=name)
def test_public_error_is_exported(kind: type[PyrmuteTasksError]) -> None:
    assert getattr(pyrmute_tasks, kind.__name__) is kind
    assert kind.__name__ in pyrmute_tasks.__all__


@pytest.mark.parametrize("kind", ERRORS, ids=name)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_pickles(kind: type[PyrmuteTasksError], protocol: int) -> None:
    error = example(kind)
    error.record_index, error.record_source = 7, "in.jsonl, line 8"
    error.raised_at, error.worker, error.worker_traceback = "a.py:3 in f", "w@h:1-a", "Traceback"
    error.add_note("record 7")
    error.add_note("and more")

    back = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  # made a moment ago

    assert type(back) is kind
    assert (str(back), repr(back), back.args) == (str(error), repr(error), error.args)
    assert vars(back) == vars(error)
    assert back.__notes__ == ["record 7", "and more"]


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if parameters(kind)], ids=name)
def test_arguments_are_attributes(kind: type[PyrmuteTasksError]) -> None:
    error = example(kind)
    assert vars(error) == parameters(kind)


def test_tree_of_errors_names_them_all() -> None:
    drawn = errors.__doc__ or ""
    missing = [n for n in errors.__all__ if n.endswith("Error") and n not in drawn]
    assert missing == []


def test_events_are_exported() -> None:
    names = set(events.__all__) - {"Observers"}  # what tells them is the engine's
    assert names <= set(pyrmute_tasks.__all__)
    assert all(getattr(pyrmute_tasks, name) is getattr(events, name) for name in names)
