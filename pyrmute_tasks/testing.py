"""Checking steps against examples: records before, and what they shall be after."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pyrmute_tasks.registry import ModelData

__all__ = [
    "MigrationTestCase",
    "MigrationTestCases",
    "MigrationTestResult",
    "MigrationTestResults",
    "run_test_cases",
]


@dataclass
class MigrationTestCase:
    """One example.

    Attributes:
        source: The record before.
        target: What it shall be after; None if it is enough that nothing is raised.
        description: What the example shows.
    """

    source: ModelData
    target: ModelData | None = None
    description: str = ""


MigrationTestCases: TypeAlias = Iterable[tuple[ModelData, ModelData | None] | MigrationTestCase]
"""Examples, or pairs of a record before and after."""


@dataclass
class MigrationTestResult:
    """What came of one example.

    Attributes:
        test_case: The example.
        actual: What the record became; empty if the migration raised.
        passed: Whether it became what it shall be.
        error: Why it did not pass; None if it did.
    """

    test_case: MigrationTestCase
    actual: ModelData
    passed: bool
    error: str | None = None

    def __str__(self) -> str:
        """Say what came of it; if it did not pass, with all there is to know."""
        case = self.test_case
        title = f" - {case.description}" if case.description else ""
        if self.passed:
            return f"✓ Test passed{title}"
        details = {
            "Source": case.source,
            "Expected": case.target,
            "Actual": self.actual,
            "Error": self.error,
        }
        lines = [f"  {label + ':':<10}{value}" for label, value in details.items()]
        return "\n".join([f"✗ Test failed{title}", *lines])


class MigrationTestResults:
    """What came of several examples, in their order.

    Args:
        results: What came of each.

    Attributes:
        results: The same.
    """

    def __init__(self, results: list[MigrationTestResult]) -> None:
        self.results = results

    @property
    def all_passed(self) -> bool:
        """Whether every example passed."""
        return not self.failures

    @property
    def failures(self) -> list[MigrationTestResult]:
        """Those that did not pass."""
        return [result for result in self.results if not result.passed]

    def assert_all_passed(self) -> None:
        """Do nothing if every example passed.

        Raises:
            AssertionError: If one did not; says all about all that did not.
        """
        failures = self.failures
        if failures:
            texts = "\n\n".join(map(str, failures))
            raise AssertionError(f"\n{len(failures)} migration test(s) failed:\n{texts}")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.results)

    def __iter__(self) -> Iterator[MigrationTestResult]:
        """Iterate over what came of each."""
        return iter(self.results)

    def __str__(self) -> str:
        """Say how many passed."""
        total, failed = len(self.results), len(self.failures)
        if not failed:
            return f"✓ All {total} test(s) passed"
        return f"✗ {failed} of {total} test(s) failed ({total - failed} passed)"


def run_test_cases(
    migrate: Callable[[ModelData], ModelData], test_cases: MigrationTestCases
) -> MigrationTestResults:
    """Migrate the source of each example and compare.

    Args:
        migrate: Migrates one record.
        test_cases: The examples.
    """
    return MigrationTestResults([_run(migrate, case) for case in test_cases])


def _run(
    migrate: Callable[[ModelData], ModelData],
    case: tuple[ModelData, ModelData | None] | MigrationTestCase,
) -> MigrationTestResult:
    if isinstance(case, tuple):
        case = MigrationTestCase(*case)
    try:
        actual = migrate(case.source)
    except Exception as error:
        return MigrationTestResult(case, {}, passed=False, error=str(error))
    if case.target is None or actual == case.target:
        return MigrationTestResult(case, actual, passed=True)
    return MigrationTestResult(case, actual, passed=False, error="Output mismatch")
