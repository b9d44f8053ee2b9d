"""Records that fail are skipped on a real fleet: the same outputs and rejects as in a loop."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks import (
    ConfigurationError,
    ErrorPolicy,
    JobState,
    Migrator,
    ProcessDiedError,
    RecordFailure,
)
from pyrmute_tasks.distributed.embedded import EmbeddedFleet
from pyrmute_tasks.engine.events import ChunkSettled, Event
from tests.conftest import descendants
from tests.people import PersonV3, broken_step, invalid, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
RECORDS = 12_000
BAD = [59 + 119 * n for n in range(100)]


def make_records() -> list[dict[str, Any]]:
    """Return good records, with bad ones that fail in a step or are not valid, in turn."""
    made = [person(index) for index in range(RECORDS)]
    for number, index in enumerate(BAD):
        made[index] = invalid(index) if number % 2 else broken_step(index)
    return made


GIVEN = make_records()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skipping") / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in GIVEN))
    return path


def expected_lines(until: int = RECORDS) -> str:
    good = [record for index, record in enumerate(GIVEN[:until]) if index not in BAD]
    models = manager.migrate_batch(good, *HOP)
    return "".join(model.model_dump_json() + "\n" for model in models)


@pytest.fixture(
    scope="module", params=[2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))]
)
def migrator(request: pytest.FixtureRequest, limited: EmbeddedFleet) -> Iterator[Migrator]:
    own = Migrator(manager, workers=request.param)
    shared = Migrator(manager, settings=limited.settings)
    with shared if request.param == 2 else own as migrator:
        yield migrator


def test_file_without_the_records_that_fail(
    migrator: Migrator, source: Path, tmp_path: Path
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    told: list[RecordFailure] = []
    report = migrator.migrate_file(
        source, target, *HOP, on_error="skip", on_reject=told.append, rejects=rejects
    )
    assert target.read_text() == expected_lines()
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [row["line"] for row in rows] == [index + 1 for index in BAD]
    assert [row["index"] for row in rows] == [failure.index for failure in told] == BAD
    whole = source.read_bytes()
    for row in rows:
        line = whole[row["offset"] : row["offset"] + row["length"]]
        assert json.loads(line) == GIVEN[row["index"]]
    assert (report.state, report.records, report.rejected) == (
        JobState.SUCCEEDED,
        RECORDS - len(BAD),
        len(BAD),
    )
    assert report.rejected_by_cause == {
        "step 2.0.0 → 3.0.0: LookupError": 50,
        "validate: ValidationError": 50,
    }
    assert report.exceeded == ""


def test_run_whose_callback_raised_calls_it_for_every_reject_when_it_goes_on(
    limited: EmbeddedFleet, source: Path, tmp_path: Path
) -> None:
    told: list[int] = []

    def tell(failure: RecordFailure) -> None:
        if len(told) == 2 and failure.index not in told:
            told.append(-1)
            raise ConnectionError("no database")
        told.append(failure.index)

    with Migrator(manager, settings=limited.settings) as migrator:
        options: dict[str, Any] = {"on_error": "skip", "on_reject": tell, "resume": True}
        arguments = (source, tmp_path / "out.jsonl", *HOP)
        with pytest.raises(ConnectionError):
            migrator.migrate_file(*arguments, chunk_size=200, **options)
        report = migrator.migrate_file(*arguments, chunk_size=200, **options)
    assert len({*told} - {-1}) == report.rejected > 2


def test_file_ends_at_the_first_failure_too_many(
    migrator: Migrator, source: Path, tmp_path: Path
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    report = migrator.run_file(
        source,
        target,
        *HOP,
        chunk_size=700,  # several failures in each
        on_error=ErrorPolicy.skip(max_errors=98),
        rejects=rejects,
        keep_partial=True,
    )
    assert report.failure is not None
    assert report.failure.index == BAD[98]
    assert report.failure.source == f"{source}, line {BAD[98] + 1}"
    assert report.exceeded == "more than 98 records failed, the limit of max_errors"
    assert (report.state, report.rejected) == (JobState.FAILED, 98)
    assert Path(report.partial_path).read_text() == expected_lines(BAD[98])
    assert len(rejects.read_text().splitlines()) == 98
    assert not target.exists()


@pytest.mark.parametrize(
    ("call", "target"),
    [
        ("migrate_batch", ()),
        ("migrate_batch_as", (PersonV3,)),
        ("migrate_batch_data", ()),
        ("migrate_batch_streaming", ()),
        ("migrate_batch_streaming_as", (PersonV3,)),
        ("migrate_batch_data_streaming", ()),
    ],
)
def test_every_call_equals_one_in_this_process(
    migrator: Migrator, call: str, target: tuple[type, ...]
) -> None:
    given = GIVEN[:3000]

    def run(where: Any, **options: Any) -> tuple[list[Any], list[Any]]:
        """Return the outputs, and all deliveries in the caller's order."""
        order: list[Any] = []
        outputs = []
        for output in getattr(where, call)(
            given,
            *HOP,
            *target,
            on_error="skip",
            on_reject=lambda reject: order.append((reject.index, reject.cause, str(reject.error))),
            **options,
        ):
            outputs.append(output)
            order.append(output)
        return outputs, order

    assert run(migrator, chunk_size=170) == run(manager)


# --- what is no fault of a record, and what kills ----------------------------------------------


@pytest.fixture(scope="module")
def limited(limited_fleet: EmbeddedFleet) -> EmbeddedFleet:
    return limited_fleet


@pytest.mark.slow
def test_record_that_kills_its_process_is_a_reject(limited: EmbeddedFleet) -> None:
    given = [person(index) for index in range(60)]
    given[7] = {"name": "kill:", "age": 1}
    given[8] = broken_step(8)
    given[31] = {"name": "sleep:60 x", "age": 1}
    rejects: list[RecordFailure] = []
    with Migrator(manager, settings=limited.settings) as migrator:
        outputs = migrator.migrate_batch_data(
            given, *HOP, chunk_size=20, on_error="skip", on_reject=rejects.append
        )
    assert outputs == [
        manager.migrate_data(person(index), *HOP) for index in range(60) if index not in (7, 8, 31)
    ]
    assert [(reject.index, reject.type_name) for reject in rejects] == [
        (7, "ProcessDiedError"),
        (8, "LookupError"),
        (31, "ProcessDiedError"),
    ]
    assert "time limit of 0.5 s" in str(rejects[2].error)


def test_job_ends_after_too_many_records_that_kill(limited: EmbeddedFleet) -> None:
    given = [person(index) for index in range(12)]
    for index in (2, 5, 9):
        given[index] = {"name": "exit:3", "age": 1}
    rejects: list[RecordFailure] = []
    with Migrator(manager, settings=limited.settings) as migrator:
        with pytest.raises(ProcessDiedError) as caught:
            migrator.migrate_batch_data(
                given,
                *HOP,
                chunk_size=3,
                on_error=ErrorPolicy.skip(max_crashes=2),
                on_reject=rejects.append,
            )
        report = migrator.last_report
    assert [reject.index for reject in rejects] == [2, 5]
    assert caught.value.record_index == 9
    assert report is not None
    assert "more than 2 records ended the process" in report.exceeded


def test_step_that_exits_ends_the_job(limited: EmbeddedFleet) -> None:
    given = [broken_step(0), person(1), {"name": "leave:", "age": 1}, broken_step(3)]
    rejects: list[RecordFailure] = []
    with (
        Migrator(manager, settings=limited.settings) as migrator,
        pytest.raises(SystemExit),
    ):
        migrator.migrate_batch_data(given, *HOP, on_error="skip", on_reject=rejects.append)
    assert [reject.index for reject in rejects] == [0]


def test_worker_processes_killed_while_records_are_skipped(
    limited: EmbeddedFleet, source: Path, tmp_path: Path
) -> None:
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, ChunkSettled) and event.chunk in (5, 20, 40):
            [pid, *_] = descendants(limited.process_ids[1 + event.chunk % 2])
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with Migrator(manager, settings=limited.settings) as migrator:
        migrator.migrate_file(
            source,
            target,
            *HOP,
            chunk_size=150,
            observers=(kill,),
            on_error="skip",
            rejects=rejects,
        )
    assert killed
    assert target.read_text() == expected_lines()
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [row["index"] for row in rows] == BAD


def test_rejects_need_a_policy_that_skips(source: Path, tmp_path: Path) -> None:
    migrator = Migrator(manager, workers=1)  # starts nothing
    target, rejects = tmp_path / "out.jsonl", tmp_path / "rejects.jsonl"
    with pytest.raises(ConfigurationError, match="--on-error skip"):
        migrator.migrate_file(source, target, *HOP, rejects=rejects)
    with pytest.raises(ConfigurationError, match="it is the output"):
        migrator.migrate_file(source, target, *HOP, on_error="skip", rejects=target)
    with pytest.raises(ConfigurationError, match="need a file"):
        migrator.migrate_file(source, target, *HOP, on_error="skip", rejects_with_records=True)
    with pytest.raises(ConfigurationError, match="add on_error='skip'"):
        migrator.migrate_file(source, target, *HOP, on_reject=print)
    assert list(tmp_path.iterdir()) == []
