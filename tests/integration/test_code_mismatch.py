"""Old code never migrates new jobs: workers whose migrations differ decline."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pyrmute_tasks import CodeMismatchError, Migrator, OnCodeMismatch, Settings
from tests.conftest import ROOT, wait_until
from tests.fleets import Fleet, Worker, private_fleet
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = [person(index) for index in range(120)]
EXPECTED = manager.migrate_batch_data(RECORDS, *HOP)
# The same models and steps, but for what an older deployment had.
OLDER_STEP = """
from tests.people import *

@manager.migration("Person", "2.0.0", "3.0.0")
def add_adult(data):
    return {**data, "adult": data["age"] >= 21}
"""
DECLINED = "its chunks are declined"
WITHOUT_THE_MODEL = """
from pyrmute_tasks import ModelManager
manager = ModelManager()
"""


def start_other(
    fleet: Fleet, code: str, directory: Path, name: str = "other", settings: Settings | None = None
) -> Worker:
    """Start a worker with other migrations."""
    module = directory / f"{name}.py"
    module.write_text(code)
    return fleet.start_worker(manager=f"{module}:manager", name=name, settings=settings)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet without workers."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with private_fleet("tests.people:manager") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def outdated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with two workers that decline: one has an older step, one lacks the model."""
    folder = tmp_path_factory.mktemp("outdated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with private_fleet("tests.people:manager") as found:
            start_other(found, OLDER_STEP, folder, "older")
            start_other(found, WITHOUT_THE_MODEL, folder, "empty")
            yield found


def test_a_fleet_without_the_right_code_ends_the_job(outdated: Fleet) -> None:
    settings = replace(outdated.settings, code_wait_s=1.5)
    with (
        Migrator(manager, settings=settings) as migrator,
        pytest.raises(CodeMismatchError) as caught,
    ):
        migrator.migrate_batch_data(RECORDS, *HOP, chunk_size=4)
    text = str(caught.value)
    assert manager.plan(*HOP).fingerprint in text
    assert "older@test" in text
    assert "empty@test" in text
    assert "'Person'" in text  # what the empty one lacks


@pytest.mark.slow
def test_a_deployment_that_arrives_in_time_saves_the_job_and_gets_all_chunks(
    outdated: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    others = outdated.workers[:2]
    before = [len(other.log) for other in others]
    results = []

    def run() -> None:
        with Migrator(manager, settings=outdated.settings) as migrator:
            results.append(migrator.migrate_batch_data(RECORDS, *HOP, chunk_size=4))

    job = threading.Thread(target=run)
    job.start()
    wait_until(lambda: has_declined(caplog), "an older worker has declined")
    right = outdated.start_worker()
    job.join()
    assert results == [EXPECTED]
    caplog.clear()
    with Migrator(manager, settings=outdated.settings) as migrator:
        assert migrator.migrate_batch_data(RECORDS, *HOP, chunk_size=4) == EXPECTED
        slow = [{"name": "sleep:0.01 x", "age": 1}]
        migrator.migrate_batch_data(slow * 20, *HOP, chunk_size=1)
    assert has_declined(caplog)
    fingerprint = manager.plan(*HOP).fingerprint
    for other, start in zip(others, before, strict=True):
        wait_until(lambda: DECLINED in other.log[start:], "it has declined")  # noqa: B023  # at once
        lines = [line for line in other.log[start:].splitlines() if DECLINED in line]
        assert len(lines) <= 3  # once a job
        assert f"wanted={fingerprint}" in lines[0]
        assert other.name in lines[0]
    right.close()


def has_declined(caplog: pytest.LogCaptureFixture) -> bool:
    return any(vars(record).get("action") == "code_declined" for record in caplog.records)


def test_warn_migrates_all_the_same(fleet: Fleet, tmp_path: Path) -> None:
    settings = replace(fleet.settings, on_code_mismatch=OnCodeMismatch.WARN)
    other = start_other(fleet, OLDER_STEP, tmp_path, settings=settings)
    with Migrator(manager, settings=settings) as migrator:
        outputs = migrator.migrate_batch_data([person(19), person(30)], *HOP, chunk_size=1)
    assert [output["adult"] for output in outputs] == [False, True]  # 21, as the worker has it
    assert other.log.count("run all the same") == 1


# A package whose helper an older deployment has otherwise; the step itself is the same.
HELPER = "def shorten(name):\n    return name[:{length}]\n"
STEPS = """
from pydantic import BaseModel
from pyrmute_tasks import ModelManager
from .helpers import shorten

manager = ModelManager()

@manager.model("Tag", "1.0.0")
class Tag1(BaseModel):
    name: str

@manager.model("Tag", "2.0.0")
class Tag2(BaseModel):
    name: str

@manager.migration("Tag", "1.0.0", "2.0.0")
def cut(data, _memo={}):
    _memo[data["name"]] = _memo
    return {"name": shorten(data["name"])}
"""


def write_tags(directory: Path, length: int) -> str:
    """Write the package; return the name of its manager."""
    package = directory / "tags_of_a_fleet"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "helpers.py").write_text(HELPER.format(length=length))
    (package / "steps.py").write_text(STEPS)
    return "tags_of_a_fleet.steps:manager"


@pytest.mark.slow
def test_changed_helper_is_named_with_its_line(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = write_tags(tmp_path / "new", 8)
    write_tags(tmp_path / "old", 9)
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    older = f"import sys; sys.path.insert(0, {str(tmp_path / 'old')!r})\n"
    older += "from tags_of_a_fleet.steps import manager\n"
    settings = replace(fleet.settings, code_wait_s=1.5)
    start_other(fleet, older, tmp_path, "older")
    with (
        Migrator(name, settings=settings) as migrator,
        pytest.raises(CodeMismatchError) as caught,
    ):
        migrator.migrate_batch_data([{"name": "x"}], "Tag", "1.0.0", "2.0.0")
    text = (
        "step Tag 1.0.0 → 2.0.0 reaches function tags_of_a_fleet.helpers.shorten "
        "(tags_of_a_fleet/helpers.py:1), which differs"
    )
    assert text in str(caught.value)
    assert "older@test" in str(caught.value)
    declined = [r for r in caplog.records if vars(r).get("action") == "code_declined"]
    assert text in str(vars(declined[0]))


@pytest.mark.slow
def test_memo_that_fills_changes_no_fingerprint(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_tags(tmp_path / "one", 8)
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'one')!r})\n"
    code += "from tags_of_a_fleet.steps import manager\n"
    settings = replace(fleet.settings, code_wait_s=5.0)
    records = [{"name": f"n{index}"} for index in range(50)]
    hop = ("Tag", "1.0.0", "2.0.0")
    start_other(fleet, code, tmp_path, "memo")
    with Migrator(name, settings=settings) as migrator:
        for _ in range(3):
            assert migrator.migrate_batch_data(records, *hop, chunk_size=10) == records
            module = sys.modules["tags_of_a_fleet.steps"]
            module.manager.migrate_batch_data(records, *hop)  # fills the producer's memo, too
        assert module.cut.__defaults__[0]
