"""What a dry run tells of a whole source: bounds, chunks and times; and what changes at a hop."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from pyrmute_tasks import ModelManager
from pyrmute_tasks.audit.trial import run_trial
from pyrmute_tasks.dry_run import ChangeKind
from pyrmute_tasks.dry_run.estimates import (
    WORKERS,
    coordinator_s,
    count_chunks,
    timing,
    upper_bound,
)
from pyrmute_tasks.dry_run.hops import field_changes, planned_hops
from pyrmute_tasks.engine.chunk_sizes import RangeSizer
from pyrmute_tasks.engine.events import ChunkSettled, SlotsChanged
from pyrmute_tasks.io.jsonl import new_sizer
from pyrmute_tasks.io.range_source import RangeSource
from tests.people import broken_step, invalid, manager, person

MIB = 1024 * 1024


# --- bounds -------------------------------------------------------------------------------


def at_most(failed: int, sampled: int, share: float) -> float:
    """The probability of so many failures or fewer, in exact numbers."""
    exact = Fraction(share)
    terms = (
        math.comb(sampled, count) * exact**count * (1 - exact) ** (sampled - count)
        for count in range(failed + 1)
    )
    return float(sum(terms))


@given(sampled=st.integers(1, 120), data=st.data())
@settings(deadline=None)
def test_bound_is_the_share_at_which_so_few_failures_are_improbable(
    sampled: int, data: st.DataObject
) -> None:
    failed = data.draw(st.integers(0, sampled))
    bound = upper_bound(failed, sampled)
    assert failed / sampled <= bound <= 1
    if failed == sampled:
        assert bound == 1
    else:
        assert at_most(failed, sampled, bound) == pytest.approx(0.05, rel=1e-6)
        assert bound < upper_bound(failed + 1, sampled) or failed + 1 == sampled


def test_bound_without_failures_is_the_rule_of_three() -> None:
    assert upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000), rel=1e-12)
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert upper_bound(0, 1) == pytest.approx(0.95)
    assert upper_bound(0, 10**9) == pytest.approx(2.9957e-9, rel=1e-4)


def test_bound_of_a_large_sample_is_near_its_share() -> None:
    assert 0.1 < upper_bound(10_000, 100_000) < 0.102


# --- chunks and times ---------------------------------------------------------------------


@pytest.mark.parametrize("seconds_per_byte", [1e-8, 1e-6, 1e-4])
@pytest.mark.parametrize("workers", [1, 64, 500])
def test_number_of_ranges_is_that_of_a_job(
    tmp_path: Path, workers: int, seconds_per_byte: float
) -> None:
    sizes = [300 * MIB, 0, 7, 5 * MIB]
    for number, size in enumerate(sizes):
        with (tmp_path / f"{number}.jsonl").open("wb") as file:
            file.truncate(size)
    names = [str(tmp_path / f"{number}.jsonl") for number in range(len(sizes))]
    source = RangeSource(names, tmp_path, "nonce", MIB)
    source(SlotsChanged(workers))
    chunks = 0
    for chunk in source.chunks():
        chunks += 1
        seconds = chunk.count * seconds_per_byte
        source(ChunkSettled(chunk.index, chunk.count, seconds, "", failed=False))
    assert count_chunks(RangeSizer(), sizes, workers, seconds_per_byte) == chunks


def test_slow_records_make_more_chunks() -> None:
    counts = [count_chunks(new_sizer(), [50 * MIB], 4, s) for s in (1e-8, 1e-5, 1e-4)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert count_chunks(new_sizer(), [], 4, 1e-8) == count_chunks(new_sizer(), [0], 4, 1e-8) == 0


def test_more_workers_help_until_the_coordinator_or_the_chunks_are_the_limit() -> None:
    times = [timing(workers, 3200.0, 100.0, 1000) for workers in WORKERS]
    assert [each.seconds for each in times] == [3200, 800, 200, 100]
    assert [each.is_limit for each in times] == [False, False, False, True]
    assert timing(64, 60.0, 0.1, 3).seconds == 20


def test_coordinator_takes_least_for_parts_and_most_for_what_passes_through_it() -> None:
    cost: Callable[..., float] = partial(coordinator_s, 1e9, 1e9, ranges=100)
    parts = cost(by_reference=True, joins=False)
    joined = cost(by_reference=True, joins=True)
    through = cost(by_reference=False, joins=True)
    assert 0 < parts < joined < through


# --- a trial ------------------------------------------------------------------------------


def as_line(record: dict[str, Any]) -> bytes:
    text = str(record).replace("'", '"')
    return f"{text}\n".encode()


def test_trial_counts_failures_once_and_times_what_is_left_of_the_warm_up() -> None:
    plan = manager.plan("Person", "1.0.0", "3.0.0")
    lines = [as_line(person(number)) for number in range(50)]
    lines[2], lines[30], lines[49] = as_line(broken_step(2)), b"no json\n", as_line(invalid(49))
    marked: list[int] = []
    trial = run_trial(plan, lines, marked.append)
    assert [(failed.index, failed.is_read) for failed in trial.failed] == [
        (2, True),
        (30, False),
        (49, True),
    ]
    assert trial.failed[0].cause == "step 2.0.0 → 3.0.0: LookupError"
    assert "LookupError at people.py:" in trial.failed[0].described
    good = [line for number, line in enumerate(lines) if number not in (2, 30, 49)]
    outputs, _, _ = plan.migrate_lines(b"".join(good))
    assert (trial.bytes_in, trial.bytes_out) == (sum(map(len, good)), len(outputs))
    assert (trial.timed_records, trial.timed_bytes) == (45, sum(map(len, lines[5:])))
    assert trial.seconds > 0
    assert marked[:50] == list(range(50))


@pytest.mark.parametrize("count", [1, 2, 9])
def test_short_trial_times_something(count: int) -> None:
    plan = manager.plan("Person", "1.0.0", "3.0.0")
    lines = [as_line(person(number)) for number in range(count)]
    trial = run_trial(plan, lines)
    assert trial.timed_records == max(1, count - 1)
    outputs, _, _ = plan.migrate_lines(b"".join(lines))
    assert (trial.failed, trial.bytes_out) == ((), len(outputs))


def test_slow_steps_run_once() -> None:
    calls: list[int] = []
    slow = ModelManager()
    slow.model("Slow", "1.0.0")(Before)
    slow.model("Slow", "2.0.0")(Before)

    @slow.migration("Slow", "1.0.0", "2.0.0")
    def step(data: dict[str, Any]) -> dict[str, Any]:
        calls.append(data["kept"])
        sum(range(300_000))
        return data

    plan = slow.plan("Slow", "1.0.0", "2.0.0")
    line = b'{"kept": 1, "typed": 1, "gone": null, "constrained": 1, "literal": "a"}\n'
    run_trial(plan, [line] * 40)
    assert len(calls) == 40


# --- hops ---------------------------------------------------------------------------------


class Leg(BaseModel):
    airport: str


class Before(BaseModel):
    kept: int
    typed: int
    gone: "list[str] | None"
    constrained: int
    literal: Literal["a", "b"]
    leg: Leg | None = None


class After(BaseModel):
    kept: int
    typed: str | None
    constrained: Annotated[int, Field(ge=0)]
    literal: dict[str, tuple[int, ...]]
    leg: "Legs.Leg | None" = None  # defined below
    new: float = 0.0


class Legs:
    class Leg(BaseModel):
        airport: str


After.model_rebuild()


def test_fields_that_differ_are_listed_with_their_types() -> None:
    changes = [
        (each.kind, each.field, each.before, each.after) for each in field_changes(Before, After)
    ]
    leg = changes.pop(2)
    assert changes == [
        (ChangeKind.TYPE, "typed", "int", "str | None"),
        (ChangeKind.TYPE, "literal", "Literal['a', 'b']", "dict[str, tuple[int, …]]"),
        (ChangeKind.REMOVED, "gone", "list[str] | None", ""),
        (ChangeKind.ADDED, "new", "", "float"),
    ]
    assert leg[:2] == (ChangeKind.TYPE, "leg")
    assert leg[2] != leg[3]  # two classes of one name


def test_hops_tell_the_place_of_their_steps() -> None:
    hops = planned_hops(manager, manager.plan("Person", "1.0.0", "3.0.0"))
    source = Path(hops[0].file).read_text().splitlines()
    assert [(hop.from_version, hop.to_version, hop.function) for hop in hops] == [
        ("1.0.0", "2.0.0", "split_name"),
        ("2.0.0", "3.0.0", "add_adult"),
    ]
    for hop in hops:
        assert f"def {hop.function}(" in "\n".join(source[hop.line - 1 : hop.line + 1])
    assert [change.field for change in hops[1].changes] == ["adult"]
    assert planned_hops(manager, manager.plan("Person", "2.0.0", "2.0.0")) == ()


def test_steps_of_all_kinds_have_a_place() -> None:
    steps = ModelManager()
    for version in range(1, 5):
        steps.model("Odd", f"{version}.0.0", backward_compatible=version == 4)(
            type(f"Odd{version}", (Before,), {"__module__": __name__})
        )

    class Callable_:  # noqa: N801  # its name is shown
        def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
            return data

    def plain(data: dict[str, Any]) -> dict[str, Any]:
        return data

    @wraps(plain)
    def wrapped(*arguments: Any) -> Any:
        return plain(*arguments)

    steps.migration("Odd", "1.0.0", "2.0.0")(wrapped)
    steps.migration("Odd", "2.0.0", "3.0.0")(Callable_())
    hops = planned_hops(steps, steps.plan("Odd", "1.0.0", "4.0.0"))
    assert [hop.function.rpartition(".")[2] for hop in hops] == ["plain", "Callable_", ""]
    assert [Path(hop.file).name for hop in hops] == [Path(__file__).name] * 2 + [""]
    assert hops[0].line == plain.__code__.co_firstlineno
    assert hops[2].line == 0
