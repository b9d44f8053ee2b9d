"""Faults on purpose: the output must have the same bytes, and nothing may hang.

The short form: some faults once, beside a job of a few seconds. `make chaos` runs the long
one, see `tests/chaos/schedules.py`.
"""

import secrets
from pathlib import Path

import pytest

from tests.chaos.faults import STAGES, Fault, run_fault
from tests.chaos.runs import Way, load_flights
from tests.fleets import RabbitMQ

pytestmark = pytest.mark.slow

# Those that break a fleet in different ways. `make chaos` has all faults, both ways and on both
# brokers; those of the line between two hosts are in tests/integration/test_network.py.
ON_REDIS = (
    Fault.CHILD_KILLED,
    Fault.WORKER_KILLED,
    Fault.ROLLING_DEPLOYMENT,
    Fault.WORKER_FROZEN,
    Fault.MESSAGE_LOST,
    Fault.REDIS_SET_BACK,
    Fault.REDIS_EMPTIED,
    Fault.CONNECTIONS_KILLED,
    Fault.READONLY_SPELL,
    Fault.PRODUCER_KILLED,
    Fault.POISON_EXITS,
)
ON_RABBITMQ = (
    Fault.CHILD_KILLED,
    Fault.WORKER_KILLED,
    Fault.DELIVERED_TWICE,
    Fault.RABBITMQ_RESTARTED,
)
BY_REFERENCE = (
    Fault.WORKER_KILLED,
    Fault.REDIS_EMPTIED,
    Fault.PRODUCER_KILLED,
    Fault.JOB_GONE,
    Fault.STORAGE_UNMOUNTED,
    Fault.STORAGE_FULL,
    Fault.STORAGE_ELSEWHERE,
)


def check(
    fault: Fault, directory: Path, rabbitmq: RabbitMQ | None, way: Way = Way.PRODUCER
) -> None:
    seed = secrets.randbits(32)
    flights = load_flights()
    result, found = run_fault(fault, directory, flights, seed, rabbitmq=rabbitmq, way=way)
    print(f"{fault}, seed {seed}: {result}")
    assert found == []


@pytest.mark.parametrize("fault", ON_REDIS)
def test_a_fault_on_redis(fault: Fault, tmp_path: Path) -> None:
    check(fault, tmp_path, None)


@pytest.mark.parametrize("fault", ON_RABBITMQ)
def test_a_fault_on_rabbitmq(fault: Fault, tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    check(fault, tmp_path, rabbitmq)


@pytest.mark.parametrize("fault", BY_REFERENCE)
def test_a_fault_by_reference(fault: Fault, tmp_path: Path) -> None:
    if not STAGES[fault].can_run:
        pytest.skip("no mount namespaces can be made here: it needs root")
    check(fault, tmp_path, None, Way.REFERENCE)
