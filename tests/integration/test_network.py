"""Producer and workers on one host, servers on another, and faults of the link between.

The job must come to the same bytes, or end with the reason within its budget.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyrmute_tasks import BrokerUnavailableError, Settings, StoreUnavailableError
from tests.chaos.runs import MANAGER, Damage, Feed, Result, Run, load_flights
from tests.fleets import Fleet, RabbitMQ, Side
from tests.fleets.namespaces import FAR, Link, TwoHosts, require_hosts

pytestmark = pytest.mark.slow

HALF_OPEN_S = 15.0
CUT_S = 3.0
OUTAGE_S = 3.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    require_hosts()
    with TwoHosts() as made:
        yield made


@pytest.fixture(scope="module")
def fleet(hosts: TwoHosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("network")
    with Fleet(directory, MANAGER, workers=2, hosts=hosts, apart=tuple(Side)) as made:
        yield made


@pytest.fixture
def link(hosts: TwoHosts) -> Iterator[Link]:
    link = hosts.link
    yield link
    link.delay_s, link.loss, link.largest_bytes = 0.0, 0.0, 65_536


def migrate(
    fleet: Fleet,
    directory: Path,
    harm: Callable[[Run], None],
    chunk_size: int = 50,
    outage_s: float | None = None,
) -> Result:
    """Run a job while the link is harmed, and check that its deliveries are right."""
    feed = Feed(directory / "in.jsonl", load_flights(), 0)
    run = Run(fleet, feed, random.Random(0), chunk_size=chunk_size, outage_s=outage_s)

    def harm_later(run: Run) -> None:
        run.wait_for_deliveries(3)
        harm(run)

    result = run.execute(harm_later)
    print(f"longest stall {result.stall_s:.1f} s, beside {result.outage_s:.1f} s of outage")
    assert result.damage == Damage()
    assert not result.is_cut_short
    assert all(worker.is_alive for worker in fleet.workers)
    return result


def test_job_survives_a_temporary_partition(fleet: Fleet, hosts: TwoHosts, tmp_path: Path) -> None:
    def cut(run: Run) -> None:
        with run.outage(), hosts.link_down():
            run.pause(CUT_S)
        run.wait_for_deliveries(5)

    result = migrate(fleet, tmp_path, cut)
    assert result.error is None
    assert result.stall_s < HALF_OPEN_S


def test_job_survives_a_delay_of_half_a_second(fleet: Fleet, link: Link, tmp_path: Path) -> None:
    def delay(run: Run) -> None:
        run.begin_fault()
        link.delay_s = 0.5
        run.wait_for_deliveries(1)
        link.delay_s = 0.0

    result = migrate(fleet, tmp_path, delay)
    assert result.error is None
    assert result.stall_s < 2 * HALF_OPEN_S


def test_half_open_connections_are_replaced(fleet: Fleet, link: Link, tmp_path: Path) -> None:
    """A firewall has dropped their state: no packet comes through, and neither end is told."""

    def swallow(run: Run) -> None:
        run.begin_fault()
        link.swallow()
        run.wait_for_deliveries(10)

    result = migrate(fleet, tmp_path, swallow)
    assert result.error is None
    assert result.stall_s < HALF_OPEN_S


def test_job_survives_losing_a_third_of_the_packets(
    fleet: Fleet, link: Link, tmp_path: Path
) -> None:
    def lose(run: Run) -> None:
        run.begin_fault()
        link.loss = 0.3
        run.wait_for_deliveries(4)
        link.loss = 0.0

    result = migrate(fleet, tmp_path, lose)
    assert result.error is None
    assert result.stall_s < 2 * HALF_OPEN_S


def test_lost_large_packets_end_the_job(fleet: Fleet, link: Link, tmp_path: Path) -> None:
    def hide_large_ones(run: Run) -> None:
        run.begin_fault()
        link.largest_bytes = 600
        run.wait_until(lambda: False, "the job has ended")

    feed = Feed(tmp_path / "in.jsonl", load_flights(), 0)
    run = Run(fleet, feed, random.Random(0), outage_s=OUTAGE_S)
    result = run.execute(hide_large_ones)
    assert isinstance(result.error, (StoreUnavailableError, BrokerUnavailableError)), result
    assert "TimeoutError" in str(result.error)
    assert result.damage == Damage()
    assert result.stall_s < OUTAGE_S + HALF_OPEN_S


def test_half_open_connections_to_rabbitmq(hosts: TwoHosts, link: Link, tmp_path: Path) -> None:
    def swallow(run: Run) -> None:
        run.begin_fault()
        link.swallow()
        run.wait_for_deliveries(10)

    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQ(FAR))
        fleet = Fleet(
            tmp_path / "fleet",
            MANAGER,
            settings=Settings(),
            rabbitmq=rabbitmq,
            hosts=hosts,
            apart=tuple(Side),
        )
        stack.enter_context(fleet)
        result = migrate(fleet, tmp_path, swallow)
        assert result.error is None
        assert result.stall_s < HALF_OPEN_S
