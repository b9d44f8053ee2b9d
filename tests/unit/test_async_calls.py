"""`AsyncMigrator` has the calls of `Migrator`, with the same parameters and defaults."""

import inspect
from inspect import Parameter

import pytest

from pyrmute_tasks import AsyncMigrator, Migrator

# A `Migrator` takes these as a `ModelManager` does, and ignores them.
IGNORED = {"parallel", "max_workers", "use_processes"}
CALLS = [name for name in dir(AsyncMigrator) if name.startswith(("migrate_", "run_"))]


def parameters(function: object) -> dict[str, tuple[object, object]]:
    assert callable(function)
    found: dict[str, Parameter] = dict(inspect.signature(function).parameters)
    return {name: (each.default, each.kind) for name, each in found.items() if name not in IGNORED}


@pytest.mark.parametrize("name", CALLS)
def test_call_has_the_parameters_of_the_migrators(name: str) -> None:
    assert parameters(getattr(AsyncMigrator, name)) == parameters(getattr(Migrator, name))


def test_all_calls_are_there() -> None:
    calls = {name for name in dir(Migrator) if name.startswith(("migrate_", "run_"))}
    assert set(CALLS) == calls
