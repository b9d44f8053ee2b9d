"""Hooks that observe migrations, with pyrmute's names and calls.

In threads, processes or on workers, a hook of this process cannot simply be called. Two rules keep
its counts right everywhere:

* Counts for `MetricsHook` are made where the chunk runs, sent with its outcome, and merged into the
  hook when the chunk is delivered, in order. So a job counts exactly the records that a sequential
  run would have met.
* Other hooks are called where the chunk runs: in the thread, or on that process's own copy. Workers
  call the hooks that the manager's module registers there.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, cast

from pyrmute_tasks.versions import ModelVersion

__all__ = [
    "HookCounts",
    "HookSet",
    "MetricsHook",
    "MigrationHook",
    "active_hooks",
    "observed",
    "only_counts",
    "use_hooks",
]

Record = dict[str, Any]


class MigrationHook:
    """Base class of hooks; override the methods you need.

    A hook only observes: its records are read-only views, and results of its methods are ignored.
    An exception that it raises ends the migration like one of a step.
    """

    def before_migrate(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        data: Mapping[str, Any],
    ) -> None:
        """Called before a record is migrated.

        Args:
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version to migrate it to.
            data: The record, read-only.
        """

    def after_migrate(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        original_data: Mapping[str, Any],
        migrated_data: Mapping[str, Any],
    ) -> None:
        """Called after a record was migrated.

        Args:
            name: The model's name.
            from_version: Version of `original_data`.
            to_version: Version of `migrated_data`.
            original_data: The record before, read-only.
            migrated_data: The record after, read-only.
        """

    def on_error(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        data: Mapping[str, Any],
        error: Exception,
    ) -> None:
        """Called when a record could not be migrated.

        Args:
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version to migrate it to.
            data: The record before, read-only.
            error: The error that will be raised.
        """


@dataclass
class HookCounts(MigrationHook):
    """Counts of one chunk for `MetricsHook`.

    Attributes:
        migrations: Migrations started, by model.
        errors: Migrations failed, by model.
        hooks: The hook set whose counting hooks this replaces while the chunk runs.
    """

    migrations: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    hooks: "HookSet | None" = field(default=None, compare=False, repr=False)

    def before_migrate(self, name: str, *_: object) -> None:
        """Count a migration."""
        self.migrations[name] += 1

    def on_error(self, name: str, *_: object) -> None:
        """Count a failure."""
        self.errors[name] += 1

    def to_wire(self) -> list[dict[str, int]]:
        """Return the counts as plain values."""
        return [dict(self.migrations), dict(self.errors)]

    @classmethod
    def from_wire(cls, data: list[dict[str, int]]) -> "HookCounts":
        """Return the counts from `to_wire`'s values."""
        migrations, errors = data
        return cls(_counter(migrations), _counter(errors))


def _counter(counts: dict[str, int]) -> "Counter[str]":
    if not all(type(name) is str and type(count) is int for name, count in counts.items()):
        raise TypeError
    return Counter(counts)


class MetricsHook(MigrationHook):
    """Counts migrations and failures.

    Attributes:
        total_count: Migrations started.
        error_count: Migrations failed.
        migrations_by_model: Migrations started, by model.
        errors_by_model: Migrations failed, by model.
    """

    def __init__(self) -> None:
        self.total_count: int = 0
        self.error_count: int = 0
        self.migrations_by_model: dict[str, int] = {}
        self.errors_by_model: dict[str, int] = {}

    def before_migrate(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        data: Mapping[str, Any],
    ) -> None:
        """Count a migration.

        Args:
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version to migrate it to.
            data: The record, read-only.
        """
        self.merge(HookCounts(migrations=Counter({name: 1})))

    def on_error(
        self,
        name: str,
        from_version: ModelVersion,
        to_version: ModelVersion,
        data: Mapping[str, Any],
        error: Exception,
    ) -> None:
        """Count a failure.

        Args:
            name: The model's name.
            from_version: Version of `data`.
            to_version: Version to migrate it to.
            data: The record, read-only.
            error: The error that will be raised.
        """
        self.merge(HookCounts(errors=Counter({name: 1})))

    def merge(self, counts: HookCounts) -> None:
        """Add a chunk's counts.

        Args:
            counts: The counts.
        """
        _add(self, counts)

    @property
    def success_rate(self) -> float:
        """Share of migrations that did not fail, from 0 to 1; 0 before the first."""
        if self.total_count == 0:
            return 0.0
        return (self.total_count - self.error_count) / self.total_count


class HookSet:
    """The hooks of a manager.

    Args:
        hooks: The hooks, in the order of their calls.
    """

    def __init__(self, hooks: Iterable[MigrationHook] = ()) -> None:
        self.all: tuple[MigrationHook, ...] = tuple(hooks)
        self._counting = [cast("_Counting", hook) for hook in self.all if only_counts(hook)]
        self.live: tuple[MigrationHook, ...] = tuple(
            hook for hook in self.all if not only_counts(hook)
        )

    def __bool__(self) -> bool:
        return bool(self.all)

    def observers(self) -> tuple[MigrationHook, ...]:
        """Return the hooks to call for a migration.

        Within a chunk (also when a step migrates something itself) the chunk's counts replace the
        hooks that only count.

        Returns:
            The hooks, in the order of their calls.
        """
        for hook in _active.get():
            if isinstance(hook, HookCounts) and hook.hooks is self:
                return (hook, *self.live)
        return self.all

    def merge(self, counts: HookCounts | None) -> None:
        """Add the counts of a delivered chunk, if any.

        Args:
            counts: The counts; None for none.
        """
        if counts is None:
            return
        for hook in self._counting:
            _add(hook, counts)


class _Counting(Protocol):
    """A `MetricsHook`, or pyrmute's, which has the same attributes."""

    total_count: int
    error_count: int
    migrations_by_model: dict[str, int]
    errors_by_model: dict[str, int]


def _add(hook: _Counting, counts: HookCounts) -> None:
    for name, count in counts.migrations.items():
        hook.total_count += count
        hook.migrations_by_model[name] = hook.migrations_by_model.get(name, 0) + count
    for name, count in counts.errors.items():
        hook.error_count += count
        hook.errors_by_model[name] = hook.errors_by_model.get(name, 0) + count


def only_counts(hook: object) -> bool:
    """Return whether a hook is a `MetricsHook`, ours or pyrmute's, without further effects."""
    # A hook of pyrmute's implies that pyrmute is imported.
    pyrmutes = getattr(sys.modules.get("pyrmute"), "MetricsHook", None)
    return any(
        isinstance(hook, counter)
        and all(
            getattr(type(hook), method) is getattr(counter, method)
            for method in ("before_migrate", "after_migrate", "on_error")
        )
        for counter in (MetricsHook, pyrmutes)
        if counter is not None
    )


_active: Final[ContextVar[tuple[MigrationHook, ...]]] = ContextVar(
    "pyrmute_tasks_hooks", default=()
)


class use_hooks:  # noqa: N801  # reads as a verb; a generator's would set attributes of errors
    """Call hooks for the migrations of this context.

    Args:
        hooks: The hooks, in the order of their calls.
    """

    __slots__ = ("_hooks", "_token")

    def __init__(self, hooks: tuple[MigrationHook, ...]) -> None:
        self._hooks = hooks

    def __enter__(self) -> None:
        self._token = _active.set(self._hooks)

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)


def active_hooks() -> tuple[MigrationHook, ...]:
    """Return the hooks in use in this context."""
    return _active.get()


def observed(
    name: str,
    from_version: ModelVersion,
    to_version: ModelVersion,
    run: Callable[[Record], Record],
) -> Callable[[Record], Record]:
    """Return `run`, which migrates one record, with the active hooks called around it."""

    def call(record: Record) -> Record:
        hooks = _active.get()
        before = _read_only(record)
        for hook in hooks:
            hook.before_migrate(name, from_version, to_version, before)
        try:
            result = run(record)
            after = _read_only(result)
            for hook in hooks:
                hook.after_migrate(name, from_version, to_version, before, after)
        except Exception as error:
            for hook in hooks:
                hook.on_error(name, from_version, to_version, before, error)
            raise
        return result

    return call


def _read_only(record: Any) -> Any:
    # Anything but a dict is shown as it is, and rejected later.
    return MappingProxyType(record) if isinstance(record, dict) else record
