"""Retries of steps that failed for a reason outside of their record.

A step may call a service, which may be unavailable for a moment. The caller names the exceptions
to retry; any other is the record's fault, would fail again and is never retried. Only the
failing record is retried, not its neighbours.
"""

import copy
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self, cast

from pyrmute_tasks.errors import ConfigurationError
from pyrmute_tasks.failures import causes_of
from pyrmute_tasks.registry import MigrationFunc, ModelData

__all__ = ["Retry"]

_logger: Final = logging.getLogger("pyrmute_tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Retry of steps: which exceptions, how often, and after which wait.

    The backoff doubles from try to try up to a limit, with up to half taken off at random, so that
    workers that failed together do not retry together.

    Attributes:
        on: Exception classes to retry, or their names as ``module:QualifiedName``. Subclasses
            count, and so do the causes of the raised exception.
        attempts: The most runs of a step for a record, the first one included.
        first_wait_s: The wait before the second try.
        max_wait_s: The longest wait.

    Raises:
        ConfigurationError: If `on` is empty, or a number is out of range.

    Example:
        ```python
        retry = Retry(on=[ConnectionError, TimeoutError], attempts=5)
        migrator = Migrator.embedded("my_app.models:manager", retry=retry)
        ```
    """

    on: Sequence[type[Exception] | str]
    attempts: int = 4
    first_wait_s: float = 0.2
    max_wait_s: float = 10.0

    def __post_init__(self) -> None:
        if isinstance(self.on, str):
            raise ConfigurationError(f"on= must be a list of exceptions: on=['{self.on}']")
        object.__setattr__(self, "on", tuple(self.on))
        if not self.on:
            raise ConfigurationError("on= is empty: name at least one exception class to retry")
        for kind in self.on:
            if isinstance(kind, str) and ":" not in kind:
                raise ConfigurationError(
                    f"'{kind}' must be written module:QualifiedName, as in builtins:ConnectionError"
                )
        if self.attempts < 1 or self.first_wait_s < 0 or self.max_wait_s < self.first_wait_s:
            raise ConfigurationError(
                "a retry needs attempts of 1 or more and 0 ≤ first_wait_s ≤ max_wait_s"
            )

    @property
    def names(self) -> frozenset[str]:
        """The exception classes by name."""
        return frozenset(kind if isinstance(kind, str) else _name_of(kind) for kind in self.on)

    def wait_s(self, tries: int) -> float:
        """Return the wait after this many failed tries.

        Args:
            tries: How often it has failed.

        Returns:
            The wait.
        """
        longest = min(self.max_wait_s, self.first_wait_s * 2.0 ** (tries - 1))
        return longest * random.uniform(0.5, 1.0)

    def wrap(
        self, function: MigrationFunc, sleep: Callable[[float], None] = time.sleep
    ) -> MigrationFunc:
        """Return a step that retries `function`.

        The first try gets the record itself, so nothing differs while no step fails. A failed try
        may have changed it, so each retry gets a copy of the original; or the record itself, if it
        holds something that cannot be copied.

        Args:
            function: The step.
            sleep: Waits between tries.

        Returns:
            The step that retries.
        """
        names = self.names

        def step(record: ModelData) -> ModelData:
            before = _copy_of(record) if self.attempts > 1 else record
            for tries in range(1, self.attempts):
                try:
                    return function(record)
                except Exception as error:
                    if not _is_retried(error, names):
                        raise
                    wait_s = self.wait_s(tries)
                    _logger.info(
                        "a step is retried in %.2f s (error=%s try=%d)",
                        wait_s,
                        type(error).__name__,
                        tries,
                        extra={"action": "step_retried"},
                    )
                sleep(wait_s)
                record = before if tries == self.attempts - 1 else _copy_of(before)
            return function(record)

        return step

    def to_wire(self) -> list[object]:
        """Return the retry as plain values.

        Returns:
            The values.
        """
        return [sorted(self.names), self.attempts, self.first_wait_s, self.max_wait_s]

    @classmethod
    def from_wire(cls, data: list[object]) -> Self:
        """Rebuild from `to_wire`'s values; classes stay names, so nothing is imported.

        Args:
            data: The values.

        Returns:
            The retry.

        Raises:
            ValueError: If it is something else.
        """
        names, attempts, first_wait_s, max_wait_s = cast(
            "tuple[list[str], int, float, float]", data
        )
        return cls(
            on=tuple(names), attempts=attempts, first_wait_s=first_wait_s, max_wait_s=max_wait_s
        )


def _copy_of(record: ModelData) -> ModelData:
    try:
        return copy.deepcopy(record)
    except Exception:  # a generator, a lock, anything an earlier step has put there
        return record


def _is_retried(error: BaseException, names: frozenset[str]) -> bool:
    return any(
        _name_of(kind) in names for cause in causes_of(error) for kind in type(cause).__mro__
    )


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
