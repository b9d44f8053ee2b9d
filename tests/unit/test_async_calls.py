"""`AsyncMigrator` has the calls of `Migrator`, with the same parameters and defaults."""

import inspect
from inspect import Parameter

import pytest

from pyrmute_tasks import AsyncMigrator, AsyncSubmittedJob, Migrator, SubmittedJob

# A `Migrator` takes these as a `ModelManager` does, and ignores them.
IGNORED = {"parallel", "max_workers", "use_processes"}
PREFIXES = ("migrate_", "run_", "retry", "submit", "job")
CALLS = [name for name in dir(AsyncMigrator) if name.startswith(PREFIXES)]


def parameters(function: object) -> dict[str, tuple[object, object]]:
    assert callable(function)
    found: dict[str, Parameter] = dict(inspect.signature(function).parameters)
    return {name: (each.default, each.kind) for name, each in found.items() if name not in IGNORED}


@pytest.mark.parametrize("name", CALLS)
def test_call_has_the_parameters_of_the_migrators(name: str) -> None:
    assert parameters(getattr(AsyncMigrator, name)) == parameters(getattr(Migrator, name))


def test_all_calls_are_there() -> None:
    calls = {name for name in dir(Migrator) if name.startswith(PREFIXES)}
    assert set(CALLS) == calls


def public(kind: type) -> dict[str, object]:
    return {name: each for name, each in vars(kind).items() if not name.startswith("_")}


def test_submitted_jobs_have_the_same_calls() -> None:
    calls, others = public(SubmittedJob), public(AsyncSubmittedJob)
    assert {name: parameters(each) for name, each in others.items()} == {
        name: parameters(each) for name, each in calls.items()
    }
