"""Records that fail are skipped: in this process, in threads and in processes, as in a loop."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, field_validator

from pyrmute_tasks import (
    ErrorPolicy,
    Event,
    InvalidRecordError,
    JobEnded,
    JobReport,
    JobState,
    MetricsHook,
    MigrationError,
    ModelManager,
    RecordFailure,
    Stage,
)
from pyrmute_tasks.engine.chunk_runs import run_plan
from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_outcome, encode_outcome
from pyrmute_tasks.engine.error_policy import ChunkFailures
from pyrmute_tasks.engine.results import ResultConverter
from pyrmute_tasks.failures import causes_of, detach_failure
from pyrmute_tasks.plans.codegen import Output, OutputKind
from pyrmute_tasks.plans.plan import DATA, Wanted
from pyrmute_tasks.wire.frames import Frame, FrameKind, decode_frame, encode_frame
from tests.people import PersonV3, broken_step, invalid, manager, person

HOP = ("Person", "1.0.0", "3.0.0")
PLAN = manager.plan(*HOP)
# Keyword arguments of a batch for each way to run it.
EAGER: dict[str, dict[str, Any]] = {
    "in this thread": {},
    "threads": {"parallel": True, "max_workers": 2},
    "processes": {"parallel": True, "max_workers": 2, "use_processes": True},
}


def records_of(kinds: str) -> list[Any]:
    """Return a record for each letter: good, bad in a step, invalid, or no record at all."""
    make: dict[str, Callable[[int], Any]] = {
        "g": person,
        "b": broken_step,
        "i": invalid,
        "n": str,
    }
    return [make[kind](index) for index, kind in enumerate(kinds)]


def seen(failure: RecordFailure) -> tuple[Any, ...]:
    return failure.index, failure.stage, failure.step, type(failure.error), str(failure.error)


def loop(records: list[Any], *, validated: bool = True) -> tuple[list[Any], list[Any]]:
    """Return the result of a loop that skips: outputs, and index and error of each failure."""
    migrate: Any = manager.migrate if validated else manager.migrate_data
    outputs, errors = [], []
    for index, record in enumerate(records):
        try:
            outputs.append(migrate(record, *HOP))
        except Exception as error:
            errors.append((index, type(error), str(error)))
    return outputs, errors


def as_in_loop(failures: list[RecordFailure]) -> list[Any]:
    return [(failure.index, type(failure.error), str(failure.error)) for failure in failures]


kinds = st.text("ggggbin", max_size=40)


@given(kinds=kinds)
def test_batch_in_this_thread_equals_a_loop(kinds: str) -> None:
    records = records_of(kinds)
    for validated in (True, False):
        outputs, errors = loop(records, validated=validated)
        for call in ("migrate_batch", "migrate_batch_streaming"):
            name = call if validated else call.replace("batch", "batch_data")
            rejects: list[RecordFailure] = []
            got = getattr(manager, name)(
                iter(records), *HOP, on_error="skip", on_reject=rejects.append
            )
            assert list(got) == outputs
            assert as_in_loop(rejects) == errors


@pytest.mark.parametrize("way", ["threads", "processes"])
@given(kinds=st.text("ggggbin", max_size=40))
@settings(max_examples=10, deadline=None)
def test_parallel_batch_equals_one_in_this_thread(way: str, kinds: str) -> None:
    records = records_of(kinds)
    expected: list[RecordFailure] = []
    outputs = manager.migrate_batch(records, *HOP, on_error="skip", on_reject=expected.append)
    rejects: list[RecordFailure] = []
    got = manager.migrate_batch(
        records, *HOP, **EAGER[way], on_error="skip", on_reject=rejects.append
    )
    assert got == outputs
    assert list(map(seen, rejects)) == list(map(seen, expected))


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("call", ["migrate_batch", "migrate_batch_as", "migrate_batch_data"])
def test_every_eager_call_skips(way: str, call: str) -> None:
    records = records_of("gbgiggbbg" * 30)
    target = (PersonV3,) if call.endswith("_as") else ()
    rejects: list[RecordFailure] = []
    got = getattr(manager, call)(
        records, *HOP, *target, **EAGER[way], on_error="skip", on_reject=rejects.append
    )
    outputs, errors = loop(records, validated=not call.endswith("_data"))
    assert got == outputs
    assert as_in_loop(rejects) == errors


@pytest.mark.parametrize(
    "call",
    ["migrate_batch_streaming", "migrate_batch_streaming_as", "migrate_batch_data_streaming"],
)
def test_every_lazy_call_skips(call: str) -> None:
    records = records_of("gbgiggbbg")
    target = (PersonV3,) if call.endswith("_as") else ()
    told: list[int] = []
    stream = getattr(manager, call)(
        records, *HOP, *target, on_error="skip", on_reject=lambda reject: told.append(reject.index)
    )
    next(stream)
    assert told == []
    next(stream)
    assert told == [1]  # before the output behind it
    list(stream)
    assert told == ([1, 6, 7] if "data" in call else [1, 3, 6, 7])


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batch_ends_at_the_same_record_on_any_number_of_workers(way: str, workers: int) -> None:
    records = records_of(("g" * 37 + "bi") * 100)
    options = dict(EAGER[way], **({"max_workers": workers} if EAGER[way] else {}))
    rejects: list[RecordFailure] = []
    policy = ErrorPolicy.skip(max_errors=99)
    with pytest.raises(ValidationError) as caught:
        manager.migrate_batch(records, *HOP, **options, on_error=policy, on_reject=rejects.append)
    _, errors = loop(records)
    assert as_in_loop(rejects) == errors[:99]
    assert vars(caught.value)["record_index"] == errors[99][0]


@pytest.mark.parametrize("call", ["migrate_batch", "migrate_batch_streaming"])
def test_nothing_is_run_behind_the_end(call: str) -> None:
    ran: list[int] = []

    def step(data: dict[str, Any]) -> dict[str, Any]:
        ran.append(data["n"])
        if data["n"] % 2:
            raise LookupError
        return data

    local = manager_with(step)
    outputs = []
    with pytest.raises(MigrationError):
        for output in getattr(local, call)(
            ({"n": n} for n in range(10)),
            *("Thing", "1.0.0", "2.0.0"),
            on_error=ErrorPolicy.skip(max_errors=2),
        ):
            outputs.append(output.n)
    assert ran == [0, 1, 2, 3, 4, 5]
    assert outputs in ([], [0, 2, 4])


def manager_with(step: Any) -> ModelManager:
    local = ModelManager()

    class Thing(BaseModel):
        n: int

    local.model("Thing", "1.0.0")(Thing)
    local.model("Thing", "2.0.0")(type("Thing", (Thing,), {}))
    local.migration("Thing", "1.0.0", "2.0.0")(step)
    return local


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("way", "call"),
    [
        ("in this thread", "migrate_batch"),
        ("in this thread", "migrate_batch_streaming"),
        ("threads", "migrate_batch"),
    ],
)
def test_exit_or_interrupt_ends_a_batch(error: type[BaseException], way: str, call: str) -> None:
    def step(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 3:
            raise error
        raise LookupError

    told: list[int] = []
    with pytest.raises(error):
        list(
            getattr(manager_with(step), call)(
                [{"n": n} for n in range(6)],
                *("Thing", "1.0.0", "2.0.0"),
                **EAGER[way],
                on_error="skip",
                on_reject=lambda reject: told.append(reject.index),
            )
        )
    assert told == [0, 1, 2]


@pytest.mark.parametrize("way", EAGER)
def test_error_of_the_source_is_raised(way: str) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield broken_step(0)
        yield person(1)
        raise OSError("gone")

    told: list[RecordFailure] = []
    with pytest.raises(OSError, match="gone"):
        manager.migrate_batch(source(), *HOP, **EAGER[way], on_error="skip", on_reject=told.append)
    assert [failure.index for failure in told] == [0]


def test_error_of_on_reject_ends_the_batch() -> None:
    def refuse(reject: RecordFailure) -> None:
        raise RuntimeError(f"no {reject.index}")

    for way in EAGER.values():
        with pytest.raises(RuntimeError, match="no 1"):
            manager.migrate_batch(records_of("gbb"), *HOP, **way, on_error="skip", on_reject=refuse)


def test_unknown_model_is_not_a_reject() -> None:
    for call in ("migrate_batch", "migrate_batch_streaming"):
        told: list[RecordFailure] = []
        with pytest.raises(Exception, match="Nobody"):
            list(
                getattr(manager, call)(
                    [person(0)], "Nobody", "1.0.0", "2.0.0", on_error="skip", on_reject=told.append
                )
            )
        assert told == []


@pytest.mark.parametrize("way", EAGER)
def test_hooks_count_every_record_once(way: str) -> None:
    metrics = MetricsHook()
    manager.add_hook(metrics)
    try:
        manager.migrate_batch(records_of("gbgb"), *HOP, **EAGER[way], on_error="skip")
    finally:
        manager.remove_hook(metrics)
    assert metrics.error_count == 2


# --- lines ------------------------------------------------------------------------------------


def lines_of(kinds: str, *, ends: bool) -> bytes:
    records = records_of(kinds.replace("x", "g"))
    lines = [
        b"no json" if kind == "x" else json.dumps(record).encode()
        for kind, record in zip(kinds, records, strict=True)
    ]
    return b"\n".join(lines) + (b"\n" if ends and lines else b"")


@given(kinds=st.text("gggbinx", max_size=30), ends=st.booleans(), start=st.integers(0, 5))
def test_lines_equal_records(kinds: str, ends: bool, start: int) -> None:
    failures: list[RecordFailure] = []

    def skip(failure: RecordFailure) -> bool:
        failures.append(failure)
        return True

    outputs, count, last = PLAN.migrate_lines(lines_of(kinds, ends=ends), start, skip)
    good = [
        record
        for kind, record in zip(kinds, records_of(kinds.replace("x", "g")), strict=True)
        if kind == "g"
    ]
    models = manager.migrate_batch(good, *HOP)
    assert outputs.decode() == "".join(model.model_dump_json() + "\n" for model in models)
    assert (count, last) == (len(good), None)
    bad = [start + index for index, kind in enumerate(kinds) if kind != "g"]
    assert [failure.index for failure in failures] == bad


@pytest.mark.parametrize("lines", [b"3\n", b"[\n]\n", b"\0\n" * 7])
def test_lines_of_one_character_are_bad_records(lines: bytes) -> None:
    """A worker must not take their chunk for a damaged message, which would end the job."""
    count = lines.count(b"\n")
    chunk = decode_frame(encode_frame(FrameKind.LINES, count, lines))
    outputs, made, failures = run_plan(PLAN, FrameKind.LINES, chunk, 0, skips=True)
    assert (outputs, made, failures.ended) == (b"", 0, False)
    assert [failure.index for failure in failures.found] == list(range(count))
    assert {type(failure.error) for failure in failures.found} == {InvalidRecordError}


@given(kinds=st.text("gggbinx", max_size=30), ends=st.booleans(), most=st.integers(0, 5))
def test_lines_end_where_records_are_no_longer_skipped(kinds: str, ends: bool, most: int) -> None:
    failures: list[RecordFailure] = []

    def skip(failure: RecordFailure) -> bool:
        failures.append(failure)
        return len(failures) <= most

    outputs, count, last = PLAN.migrate_lines(lines_of(kinds, ends=ends), 0, skip)
    bad = [index for index, kind in enumerate(kinds) if kind != "g"]
    assert outputs.count(b"\n") == count
    if len(bad) <= most:
        assert last is None
        assert count == len(kinds) - len(bad)
    else:
        assert last is not None
        assert last.index == bad[most]
        assert count == bad[most] - most


def test_each_record_is_read_once() -> None:
    read: list[int] = []

    def source() -> Iterator[Any]:
        for index, record in enumerate(records_of("gbbgng")):
            read.append(index)
            yield record

    failures = ChunkFailures(skips=True, capture=detach_failure)
    output = Output(OutputKind.MODELS, PLAN.target)
    outputs, last = PLAN.run(source(), output, 10, failures)
    assert read == list(range(6))
    assert len(outputs) == 3
    assert last is None
    assert [failure.index for failure in failures.found] == [11, 12, 14]
    assert isinstance(failures.found[2].error, InvalidRecordError)
    assert PLAN.run(records_of("gb"), DATA)[1] is not None  # by default the first one ends it


# --- errors that refer to what changes later --------------------------------------------------


class Filled(BaseModel):
    n: int
    name: str


reusing = ModelManager()
reusing.model("Filled", "1.0.0")(Filled)
reusing.model("Filled", "2.0.0")(Filled)
_reused: dict[str, Any] = {}


@reusing.migration("Filled", "1.0.0", "2.0.0")
def fill_the_same_dict(data: dict[str, Any]) -> dict[str, Any]:
    """Return one dict for all records; raise an error that holds it, for some."""
    _reused.clear()
    _reused.update(data)
    if data["n"] == "raise":
        raise ValueError(_reused)
    return _reused


UNLIKE: list[dict[str, Any]] = [{"n": 0, "name": "a"}, {"n": 1}, {"n": "x", "name": "b"}]


def inputs_of(failure: RecordFailure) -> list[Any]:
    assert isinstance(failure.error, ValidationError)
    return [each["input"] for each in failure.error.errors()]


@pytest.mark.parametrize("way", EAGER)
def test_errors_show_the_record_as_it_was_when_it_failed(way: str) -> None:
    rejects: list[RecordFailure] = []
    reusing.migrate_batch(
        UNLIKE * 50,
        *("Filled", "1.0.0", "2.0.0"),
        **EAGER[way] | ({"max_workers": 1} if way == "threads" else {}),  # they would share it
        on_error="skip",
        on_reject=rejects.append,
    )
    expected = [[{"n": 1}], ["x"]] * 50
    if way == "in this thread":  # as a loop that keeps the errors: they share what the step reuses
        expected = [found if found == ["x"] else [UNLIKE[-1]] for found in expected]
    assert list(map(inputs_of, rejects)) == expected


def test_workers_send_errors_as_they_were_raised() -> None:
    records = [{"n": "raise", "name": str(index)} for index in range(30)] + [{"n": 1}, UNLIKE[0]]
    plan = reusing.plan("Filled", "1.0.0", "2.0.0")
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    chunk = decode_frame(encode_frame(FrameKind.LINES, len(records), lines))
    outputs, count, failures = run_plan(plan, FrameKind.LINES, chunk, 0, skips=True)
    frame = encode_frame(FrameKind.LINES, count, outputs)
    *raised, invalid_one = decode_outcome(
        encode_outcome(Outcome(0, count, frame, tuple(failures.found)))
    ).failures
    assert [causes_of(failure.error)[-1].args[0] for failure in raised] == records[:30]
    assert inputs_of(invalid_one) == [{"n": 1}]
    assert [bool(failure.traceback) for failure in raised] == [True] * 20 + [False] * 10


# --- results ----------------------------------------------------------------------------------


class Odd(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        if n == 9:
            raise SystemExit
        if n % 2:
            raise ValueError
        return n


@pytest.mark.parametrize(
    ("data", "failed", "is_final", "outputs", "expected", "expected_final"),
    [
        ([0, 2], [], False, [0, 2], [], False),
        ([0, 1, 2, 3], [], False, [0, 2], [11, 13], False),
        ([0, 1, 2], [10, 12], False, [0, 2], [10, 12, 13], False),
        ([1, 1, 0], [11, 12, 15], True, [0], [10, 11, 12, 13, 15], True),
        ([0, 1, 9, 2], [10, 15], False, [0], [10, 12, 13], True),
        ([9, 0], [10, 12], True, [], [10, 11], True),
    ],
)
def test_failures_of_workers_and_of_results_are_one_list(
    data: list[int],
    failed: list[int],
    is_final: bool,
    outputs: list[int],
    expected: list[int],
    expected_final: bool,
) -> None:
    failures = tuple(RecordFailure(index, Stage.STEP, "", KeyError()) for index in failed)
    outcome = Outcome(0, len(data), None, failures, is_final=is_final)
    converter = ResultConverter(PLAN, Wanted(model=Odd), skips=True)
    found = converter.convert(Chunk(0, 10, 6, None), outcome, [{"n": n} for n in data])
    assert [output.n for output in found.outputs] == outputs
    assert found.count == len(outputs)
    assert [failure.index for failure in found.failures] == expected
    assert found.is_final == expected_final


# --- reports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", EAGER)
@pytest.mark.parametrize("streams", [False, True])
def test_report_counts_rejects(way: str, streams: bool) -> None:
    reports: list[JobReport] = []

    def observe(event: Event) -> None:
        if isinstance(event, JobEnded):
            reports.append(event.report)

    call: Any = manager.migrate_batch_streaming if streams else manager.migrate_batch
    options = {} if streams else EAGER[way]
    policy = ErrorPolicy.skip(max_errors=3)
    list(call(records_of("gbgib"), *HOP, **options, on_error=policy, observers=[observe]))
    with pytest.raises(MigrationError):
        list(call(records_of("bbbbg"), *HOP, **options, on_error=policy, observers=[observe]))
    done, ended = reports
    assert (done.state, done.records, done.rejected) == (JobState.SUCCEEDED, 2, 3)
    assert done.rejected_by_cause == {
        "step 2.0.0 → 3.0.0: LookupError": 2,
        "validate: ValidationError": 1,
    }
    assert (ended.state, ended.records, ended.rejected) == (JobState.FAILED, 0, 3)
    assert ended.failure is not None
    assert ended.failure.index == 3
    assert ended.exceeded == "more than 3 records failed, the limit of max_errors"


@pytest.mark.parametrize("lines", [b"]\n", b"[\n]\n,\n"])
def test_chunk_of_lines_with_one_byte_each_is_skipped(lines: bytes) -> None:
    count = lines.count(b"\n")
    outputs, migrated, failures = run_plan(
        PLAN, FrameKind.LINES, Frame(FrameKind.LINES, count, lines), 7, skips=True
    )
    assert (outputs, migrated, failures.ended) == (b"", 0, False)
    assert [(each.index, type(each.error)) for each in failures.found] == [
        (7 + number, InvalidRecordError) for number in range(count)
    ]
