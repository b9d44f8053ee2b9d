"""Examples of steps: their reports, which equal pyrmute's."""

from typing import Any

import pyrmute
import pytest

from pyrmute_tasks import MigrationTestCase, MigrationTestResults
from tests.unit.both import Both

HOP = ("User", "1.0.0", "2.0.0")

CASES: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
    ({"name": "Ada"}, {"name": "Ada", "mail": ""}, "adds a field"),
    ({"name": "Ada"}, {"name": "ada"}, "expects something else"),
    ({"name": "Ada"}, None, ""),
    ({}, {}, "raises"),
]


@pytest.fixture
def both() -> Both:
    both = Both()
    both.migration(*HOP)(lambda data: {"name": data["name"], "mail": ""})
    return both


def ours_of(both: Both) -> MigrationTestResults:
    return both.ours.test_migration(*HOP, [MigrationTestCase(*case) for case in CASES])


def test_results_equal_pyrmutes(both: Both) -> None:
    ours = ours_of(both)
    theirs = both.theirs.test_migration(*HOP, [pyrmute.MigrationTestCase(*case) for case in CASES])
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.passed, mine.actual, mine.error) == (other.passed, other.actual, other.error)
        assert vars(mine.test_case) == vars(other.test_case)
        assert str(mine) == str(other)
    assert (len(ours), ours.all_passed, str(ours)) == (len(theirs), theirs.all_passed, str(theirs))
    with pytest.raises(AssertionError) as expected:
        theirs.assert_all_passed()
    with pytest.raises(AssertionError) as raised:
        ours.assert_all_passed()
    assert str(raised.value) == str(expected.value)


def test_failures_are_those_that_did_not_pass(both: Both) -> None:
    failed = [result.test_case.description for result in ours_of(both).failures]
    assert failed == ["expects something else", "raises"]


def test_pairs_are_examples_too(both: Both) -> None:
    results = both.ours.test_migration(*HOP, [(source, target) for source, target, _ in CASES[:1]])
    results.assert_all_passed()
    assert str(results) == "✓ All 1 test(s) passed"
    assert str(next(iter(results))) == "✓ Test passed"


def test_a_missing_path_fails_each_example(both: Both) -> None:
    results = both.ours.test_migration("Nobody", "1.0.0", "2.0.0", [({}, {})])
    assert [result.error for result in results] == ["Model 'Nobody' not found in registry"]


def test_empty_list_of_examples_passes(both: Both) -> None:
    results = both.ours.test_migration(*HOP, [])
    assert results.all_passed
    assert len(results) == 0
