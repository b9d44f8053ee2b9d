"""Every undocumented behaviour we rely on still holds, and their table is complete."""

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
)
from tests.unit.canaries.table import (
    BOUNDARY,
    TABLE,
    Internal,
    imported_names,
    outside_boundary,
    private_uses,
    sources,
    undocumented_names,
    uses_of,
)

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
}
"""The versions that the rows were written against."""

LIBRARIES: Final = ("amqp", "billiard", "celery", "kombu", "redis")

DOCUMENTED: Final = {
    "billiard.current_process",
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
    "redis.AuthenticationError",
    "redis.Connection",
    "redis.ConnectionError",
    "redis.ConnectionPool",
    "redis.Redis",
    "redis.RedisError",
    "redis.ResponseError",
    "redis.SSLConnection",
    "redis.TimeoutError",
    "redis.UnixDomainSocketConnection",
    "redis.backoff.ExponentialBackoff",
    "redis.backoff.NoBackoff",
    "redis.exceptions",
    "redis.exceptions.AuthenticationError",
    "redis.retry.Retry",
}
"""Names in the libraries' reference documentation; what a subclass overrides has a row."""

DOCUMENTED_ATTRIBUTES: Final = {
    "connection_for_read",
    "connection_for_write",
    "from_url",
    "pool",
    "socket_keepalive_options",
}
"""Names of rows that are documented; the rows are about what they do in a special case."""

OURS: Final = {"collect", "publish", "reject", "revoke", "worker"}
"""Names of rows that are also names of our own methods and fields."""


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
        for text in sources().values()
        for name, statement in imported_names(text, LIBRARIES)
        if name not in DOCUMENTED and not _has_row(statement)
    }
    assert not missing, "write a row for each, in tests/unit/canaries"


# --- the boundary ---------------------------------------------------------------------------


def test_only_the_boundary_imports_the_libraries() -> None:
    # Documented names of redis-py may be used anywhere in `distributed`.
    imported = {
        f"{module} imports {name}"
        for module, text in outside_boundary().items()
        for name, _ in imported_names(text, LIBRARIES)
        if name not in DOCUMENTED or not name.startswith("redis.")
    }
    assert not imported, f"move what needs it to {BOUNDARY}"


def test_only_the_boundary_uses_the_names_of_the_table() -> None:
    names = undocumented_names(LIBRARIES) - DOCUMENTED_ATTRIBUTES - OURS
    used = [
        f"{module}, {use}"
        for module, text in outside_boundary().items()
        if module.startswith("distributed")  # the import contracts keep the libraries in there
        for use in uses_of(text, names)
    ]
    assert not used, f"move what needs it to {BOUNDARY}"


def test_only_the_boundary_uses_attributes_of_pydantics_own() -> None:
    names = {name for name in undocumented_names(("pydantic",)) if name.startswith("__p")}
    assert "__pydantic_validator__" in names
    used = [
        f"{module}, {use}"
        for module, text in outside_boundary().items()
        for use in uses_of(text, names | {"core_schema"})
    ]
    assert not used, f"move what needs it to {BOUNDARY}"


def test_internals_are_used_in_the_boundary_only() -> None:
    elsewhere = {
        row.name
        for row in TABLE
        if not all(module.startswith(BOUNDARY) for module in row.used_in())
    }
    assert elsewhere == {
        # All of these are public; what is asserted about them is not said.
        "`virtual_host` in the URL of a unix socket is the number of the database",
        "`FieldInfo.default_factory_takes_validated_data`",
        "`FieldInfo.metadata`; unset parts are `None` or `PydanticUndefined`",
        "`pydantic_core.TzInfo(seconds)`",
        # The standard library's, each in one module.
        "`Enum._member_map_`, `_value2member_map_`, `_name_`, `_value_`, `Flag._missing_`",
        "assignment to `__bases__` of exception classes",
    }


@pytest.mark.parametrize(
    "line",
    [
        "queue = hub.timer._queue",
        "held = {*worker.state.reserved_requests}",
        "getattr(connection.connection, 'sock', None)",
        "class Ours(Request):\n    def on_failure(self): ...",
        "connection.transport.call_repeatedly(1, print)",
        "self.app.select_add(queue)",
    ],
)
def test_use_of_an_undocumented_name_is_found(line: str) -> None:
    assert list(uses_of(line, undocumented_names(LIBRARIES)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from celery.worker import state", "celery.worker.state"),
        ("import billiard.pool\nbilliard.pool.LIMIT = 3", "billiard.pool.LIMIT"),
        ("import redis as client\nclient.asyncio", "redis.asyncio"),
        ("def late():\n    from kombu import pidbox", "kombu.pidbox"),
    ],
)
def test_import_of_a_library_is_found(text: str, name: str) -> None:
    assert name in {found for found, _ in imported_names(text, LIBRARIES)}


def test_own_attributes_are_not_uses_of_internals() -> None:
    names = undocumented_names(LIBRARIES)
    assert not list(uses_of("self._queue = queue\nsettings.queue", names))


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
)
"""Importing them fills the table."""


if __name__ == "__main__":
    Path(PAGE).write_text(page())
