"""In threads, processes and workers, results that depend on the record alone equal a loop's."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from pyrmute_tasks import Migrator, ModelManager, UnsupportedValueError
from tests.differential import catalogue
from tests.differential.chains import Chain
from tests.differential.conftest import CASES
from tests.differential.oracle import (
    Run,
    as_raised_by_a_generator,
    as_told_by_a_process,
    loop,
    run_of,
)

Take = Callable[[Any], None]

# What a case costs differs by a factor of fifty; the long form has ten thousand together.
THREADS: Final = max(20, CASES // 10)
PROCESSES: Final = max(10, CASES // 25)


def differences(expected: Run, got: Run, *, streams: bool = False) -> list[Any]:
    """Return how ours differs from the loop."""
    found: list[Any] = []
    if got.error and got.error[0][0] is UnsupportedValueError:
        # The row "a value that cannot travel": refused at its record, whatever comes later.
        is_early = expected.index is None or got.index <= expected.index  # type: ignore[operator]  # it has one
        is_whole = not streams or got.alone == expected.alone[: got.index]
        return (
            []
            if is_early and is_whole
            else [("refused", (expected.error, expected.alone), (got.index, got.alone))]
        )
    wanted = as_raised_by_a_generator(expected.error) if streams else expected.error
    if got.error not in (wanted, as_told_by_a_process(wanted)):
        found.append(("error", wanted, got.error))
    elif expected.index is not None and got.index not in (expected.index, None):
        found.append(("index", expected.index, got.index))
    if (expected.error is None or streams) and got.alone != expected.alone:
        found.append(("outputs", expected.alone, got.alone))
    return found


def is_shared(chain: Chain) -> bool:
    """Return whether steps share a state that two threads would use at once."""
    steps = (*chain.spec.steps, *chain.spec.nested)
    return any(deed.name == "reuse" for step in steps if step for deed in step)


def parallel(chain: Chain, call: str, *, use_processes: bool) -> Run:
    ours = ModelManager()
    chain.register(ours)

    def deliver(source: Iterable[Any], take: Take) -> None:
        batch = ours.migrate_batch if call == "migrate" else ours.migrate_batch_data
        for output in batch(source, *chain.hop, True, 2, use_processes):
            take(output)

    return run_of(chain, deliver)


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
def test_threads_equal_the_loop(call: str) -> None:
    for seed in range(THREADS // 2):
        chain = catalogue.chain_of(seed)
        if chain.spec.source != "reusing" and not is_shared(chain):
            expected = loop(chain, call)
            found = differences(expected, parallel(chain, call, use_processes=False))
            assert found == [], (seed, chain.spec)


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
def test_processes_equal_the_loop(call: str) -> None:
    for seed in range(PROCESSES // 2):
        chain = catalogue.chain_of(seed)
        if chain.spec.source != "reusing":
            expected = loop(chain, call)
            found = differences(expected, parallel(chain, call, use_processes=True))
            assert found == [], (seed, chain.spec)


# --- workers ------------------------------------------------------------------------------


def on_workers(migrator: Migrator, chain: Chain, call: str) -> Run:
    def deliver(source: Iterable[Any], take: Take) -> None:
        stream: Any = migrator.migrate_batch_streaming
        if call == "migrate_data":
            stream = migrator.migrate_batch_data_streaming
        for output in stream(source, *chain.hop, chunk_size=chain.spec.chunk_size):
            take(output)

    return run_of(chain, deliver)


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
def test_workers_equal_the_loop(fleet: Migrator, call: str) -> None:
    for chain in catalogue.CHAINS["records"]:
        found = differences(loop(chain, call), on_workers(fleet, chain, call), streams=True)
        assert found == [], (chain.name, chain.spec)


def by_file(migrator: Migrator, chain: Chain, directory: Path) -> Run:
    source, target = directory / "in.jsonl", directory / "out.jsonl"
    target.unlink(missing_ok=True)

    def deliver(records: Iterable[Any], take: Take) -> None:
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
        migrator.migrate_file(source, target, *chain.hop, chunk_size=chain.spec.chunk_size)
        for line in target.read_text().split("\n")[:-1]:
            take(line)

    return run_of(chain, deliver)


def test_file_equals_the_loop(fleet: Migrator, tmp_path: Path) -> None:
    for chain in catalogue.CHAINS["lines"]:
        found = differences(loop(chain, "lines"), by_file(fleet, chain, tmp_path))
        assert found == [], (chain.name, chain.spec)
