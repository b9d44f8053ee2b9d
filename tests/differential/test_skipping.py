"""Records that fail are skipped as by a loop, whatever steps and validators do."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from pyrmute_tasks import Migrator, ModelManager, RecordFailure
from pyrmute_tasks.engine.error_policy import OnReject
from tests.differential import catalogue
from tests.differential.chains import Chain, spec_of
from tests.differential.compare import described
from tests.differential.conftest import CASES, SLOW_CASES
from tests.differential.oracle import Reject, Run, as_told_by_a_process, loop, run_of
from tests.differential.test_across_processes import is_shared

Take = Callable[[Any], None]

_ELSEWHERE: Final = max(10, CASES // 25)


def stream(
    migrator: Any, name: str, chain: Chain, source: Iterable[Any], take: Take, *options: Any
) -> None:
    """Run a lazy call that skips; put a `Reject` in the place of each skipped record."""
    for output in getattr(migrator, name)(
        source,
        *chain.hop,
        *options,
        on_error="skip",
        on_reject=lambda failure: take(Reject(failure.index, described(failure.error))),
    ):
        take(output)


def batch(
    migrator: Any, name: str, chain: Chain, source: Iterable[Any], take: Take, *options: Any
) -> None:
    """Run an eager call that skips, and record its result."""
    call = getattr(migrator, name)
    take_in_order(
        lambda on_reject: call(source, *chain.hop, *options, on_error="skip", on_reject=on_reject),
        take,
    )


def take_in_order(run: Callable[[OnReject], list[Any]], take: Take) -> None:
    """Merge outputs and rejects in the order of the records; only rejects if it raises."""
    rejects: dict[int, Reject] = {}

    def on_reject(failure: RecordFailure) -> None:
        assert failure.index > max(rejects, default=-1)
        rejects[failure.index] = Reject(failure.index, described(failure.error))

    outputs: list[Any] = []
    try:
        outputs = run(on_reject)
    finally:
        left = iter(outputs)
        for index in range(len(outputs) + len(rejects)) if outputs else rejects:
            take(rejects[index] if index in rejects else next(left))


def rejects_of(run: Run) -> list[Any]:
    return [found for found in run.alone if isinstance(found, tuple) and found[0] is Reject]


def check(expected: Run, got: Run, chain: Chain, *, streams: bool = False) -> None:
    """Check the deliveries; of an eager call that raises, only the rejects."""
    if "UnsupportedValueError" in repr((got.error, got.alone)):
        return  # the row "a value that cannot travel": refused, or a reject
    told = as_told_by_a_process
    assert told(rejects_of(got)) == told(rejects_of(expected)), chain.spec
    assert got.error == expected.error, chain.spec
    if streams or expected.error is None:
        assert told(got.alone) == told(expected.alone), chain.spec


def check_here(expected: Run, got: Run, chain: Chain, *, streams: bool) -> None:
    """Check the calls and the sharing, too, which in this process equal a loop's."""
    assert rejects_of(got) == rejects_of(expected), chain.spec
    assert (got.error, got.calls) == (expected.error, expected.calls), chain.spec
    if streams or expected.error is None:
        assert got.outputs == expected.outputs, chain.spec
        assert got.after == expected.after, chain.spec
    if streams:
        assert got.alone == expected.alone, chain.spec


@pytest.mark.parametrize("cases", [CASES, pytest.param(SLOW_CASES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("streams", [False, True])
def test_in_process_batch_equals_a_loop(call: str, streams: bool, cases: int) -> None:
    name = "migrate_batch" + ("_data" if call == "migrate_data" else "")
    name += "_streaming" if streams else ""
    for seed in range(cases // 4):
        chain = Chain(spec_of(Random(seed)), "Case")
        expected = loop(chain, call, skips=True)
        ours = ModelManager()
        chain.register(ours)
        run = stream if streams else batch
        got = run_of(chain, lambda source, take: run(ours, name, chain, source, take))  # noqa: B023  # run at once
        check_here(expected, got, chain, streams=streams)


@pytest.mark.parametrize("row", catalogue.ROWS)
def test_habit_in_this_process(row: str) -> None:
    chain = Chain(catalogue.ROWS[row], "Row")
    expected = loop(chain, "migrate", skips=True)
    ours = ModelManager()
    chain.register(ours)
    got = run_of(
        chain, lambda source, take: stream(ours, "migrate_batch_streaming", chain, source, take)
    )
    check_here(expected, got, chain, streams=True)


@pytest.mark.parametrize("use_processes", [False, True])
def test_threads_and_processes_equal_a_loop(use_processes: bool) -> None:
    for seed in range(_ELSEWHERE):
        chain = catalogue.chain_of(seed)
        if chain.spec.source == "reusing" or (is_shared(chain) and not use_processes):
            continue
        ours = ModelManager()
        chain.register(ours)
        options = (True, 2, use_processes)
        got = run_of(
            chain,
            lambda source, take: batch(ours, "migrate_batch", chain, source, take, *options),  # noqa: B023  # run at once
        )
        check(loop(chain, "migrate", skips=True), got, chain)


@pytest.mark.parametrize("call", ["migrate_batch_streaming", "migrate_batch_data_streaming"])
def test_workers_equal_a_loop(fleet: Migrator, call: str) -> None:
    for chain in catalogue.CHAINS["records"]:
        got = run_of(
            chain,
            lambda source, take: stream(fleet, call, chain, source, take, chain.spec.chunk_size),  # noqa: B023  # run at once
        )
        expected = loop(chain, "migrate_data" if "data" in call else "migrate", skips=True)
        check(expected, got, chain, streams=True)


def test_file_equals_a_loop(fleet: Migrator, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"

    def migrate(chain: Chain, records: Iterable[Any], on_reject: OnReject) -> list[Any]:
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        size = chain.spec.chunk_size
        fleet.migrate_file(
            source, target, *chain.hop, chunk_size=size, on_error="skip", on_reject=on_reject
        )
        return target.read_text().split("\n")[:-1]

    for chain in catalogue.CHAINS["lines"]:

        def deliver(records: Iterable[Any], take: Take) -> None:
            take_in_order(partial(migrate, chain, records), take)  # noqa: B023  # run at once

        check(loop(chain, "lines", skips=True), run_of(chain, deliver), chain)
