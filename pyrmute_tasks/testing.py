"""Testing steps with examples: records before, and their expected results."""

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
    """An example.

    Attributes:
        source: The record before.
        target: The expected result; None if any result will do.
        description: Description of the example, for messages.
    """

    source: ModelData
    target: ModelData | None = None
    description: str = ""


MigrationTestCases: TypeAlias = Iterable[tuple[ModelData, ModelData | None] | MigrationTestCase]
"""Examples, or pairs of a record and its expected result."""


@dataclass
class MigrationTestResult:
    """The result of one example.

    Attributes:
        test_case: The example.
        actual: The actual result; empty if the migration raised.
        passed: Whether it is the expected one.
        error: The reason it did not pass; None if it did.
    """

    test_case: MigrationTestCase
    actual: ModelData
    passed: bool
    error: str | None = None

    def __str__(self) -> str:
        """Describe the result; with all details if it did not pass."""
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
    """The results of several examples, in order.

    Args:
        results: The results.

    Attributes:
        results: The results.
    """

    def __init__(self, results: list[MigrationTestResult]) -> None:
        self.results = results

    @property
    def all_passed(self) -> bool:
        """Whether all examples passed."""
        return not self.failures

    @property
    def failures(self) -> list[MigrationTestResult]:
        """The results that did not pass."""
        return [result for result in self.results if not result.passed]

    def assert_all_passed(self) -> None:
        """Raise if an example did not pass.

        Raises:
            AssertionError: With details of all that did not pass.
        """
        failures = self.failures
        if failures:
            texts = "\n\n".join(map(str, failures))
            raise AssertionError(f"\n{len(failures)} migration test(s) failed:\n{texts}")

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)

    def __iter__(self) -> Iterator[MigrationTestResult]:
        """Iterate over the results."""
        return iter(self.results)

    def __str__(self) -> str:
        """Return how many passed."""
        total, failed = len(self.results), len(self.failures)
        if not failed:
            return f"✓ All {total} test(s) passed"
        return f"✗ {failed} of {total} test(s) failed ({total - failed} passed)"


def run_test_cases(
    migrate: Callable[[ModelData], ModelData], test_cases: MigrationTestCases
) -> MigrationTestResults:
    """Migrate the sources of examples and compare the results with their targets.

    Args:
        migrate: Migrates one record.
        test_cases: The examples.
    """
    return MigrationTestResults([_run_test_case(migrate, case) for case in test_cases])


def _run_test_case(
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
