"""Testing steps, under pyrmute's module name."""

from pyrmute_tasks.testing import (
    MigrationTestCase,
    MigrationTestCases,
    MigrationTestResult,
    MigrationTestResults,
)

__all__ = ["MigrationTestCase", "MigrationTestCases", "MigrationTestResult", "MigrationTestResults"]
