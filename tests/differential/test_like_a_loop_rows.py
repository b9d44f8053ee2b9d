"""Every habit that once made a batch differ from a loop, with every way to run a batch."""

from pathlib import Path
from typing import Final

import pytest

from pyrmute_tasks import Migrator
from tests.differential import catalogue, test_across_processes, test_in_process
from tests.differential.chains import Chain, is_local
from tests.differential.oracle import loop
from tests.differential.test_across_processes import by_file, on_workers, parallel

ROWS: Final = list(catalogue.ROWS)
# What a record becomes depends on the record alone, though the step has a memo or a dict.
LOCAL: Final = [name for name, spec in catalogue.ROWS.items() if is_local(spec)]
SPREAD: Final = [name for name in LOCAL if catalogue.ROWS[name].source != "reusing"]
IN_THREADS: Final = [name for name in SPREAD if name != "step returns the same dict"]
# What JSON has no word for is no difference of ours.
AS_LINES: Final = [
    name for name in SPREAD if name not in ("memoryview", "enum key", "a zone without a name")
]


def chain_of(row: str) -> Chain:
    return Chain(catalogue.ROWS[row], "Row")


def on_fleet(row: str) -> Chain:
    return catalogue.CHAINS["rows"][ROWS.index(row)]


@pytest.mark.parametrize("way", test_in_process.WAYS)
@pytest.mark.parametrize("row", ROWS)
def test_row_in_this_process(row: str, way: str) -> None:
    test_in_process.check(chain_of(row), way)


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("row", IN_THREADS)
def test_row_in_threads(row: str, call: str) -> None:
    chain = chain_of(row)
    got = parallel(chain, call, use_processes=False)
    assert test_across_processes.differences(loop(chain, call), got) == []


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("row", SPREAD)
def test_row_in_processes(row: str, call: str) -> None:
    chain = chain_of(row)
    got = parallel(chain, call, use_processes=True)
    assert test_across_processes.differences(loop(chain, call), got) == []


@pytest.mark.parametrize("call", ["migrate", "migrate_data"])
@pytest.mark.parametrize("row", LOCAL)
def test_row_on_workers(fleet: Migrator, row: str, call: str) -> None:
    chain = on_fleet(row)
    got = on_workers(fleet, chain, call)
    assert test_across_processes.differences(loop(chain, call), got, streams=True) == []


@pytest.mark.parametrize("row", AS_LINES)
def test_row_in_a_file(fleet: Migrator, tmp_path: Path, row: str) -> None:
    chain = on_fleet(row)
    got = by_file(fleet, chain, tmp_path)
    assert test_across_processes.differences(loop(chain, "lines"), got) == []
