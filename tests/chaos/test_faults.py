"""Break things on purpose; the output must be the same bytes, and nothing may hang.

The short form: every fault once, beside a job of a few seconds. `make chaos` runs the long
one, see `tests/chaos/schedules.py`.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import STAGES, Fault, run_fault
from tests.chaos.runs import load_flights
from tests.rabbitmq import RabbitMQ

pytestmark = pytest.mark.chaos

# Those of the line between two hosts are in tests/integration/test_network.py.
ON_REDIS = [fault for fault in Fault if STAGES[fault].on_redis and STAGES[fault].apart is None]
# Those in which the broker has a part; the long form has all of them on both.
ON_RABBITMQ = (
    Fault.CHILD_KILLED,
    Fault.WORKER_KILLED,
    Fault.ROLLING_DEPLOYMENT,
    Fault.WORKER_FROZEN,
    Fault.WORKERS_GONE,
    Fault.DELIVERED_TWICE,
    Fault.RABBITMQ_RESTARTED,
    Fault.CONSUMERS_CANCELLED,
)


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


def check(fault: Fault, directory: Path, rabbitmq: RabbitMQ | None) -> None:
    seed = secrets.randbits(32)
    flights = load_flights()
    result, found = run_fault(fault, directory, flights, seed, rabbitmq=rabbitmq)
    print(f"{fault}, seed {seed}: {result}")
    assert found == []


@pytest.mark.parametrize("fault", ON_REDIS)
def test_a_fault_on_redis(fault: Fault, tmp_path: Path) -> None:
    check(fault, tmp_path, None)


@pytest.mark.parametrize("fault", ON_RABBITMQ)
def test_a_fault_on_rabbitmq(fault: Fault, tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    check(fault, tmp_path, rabbitmq)
