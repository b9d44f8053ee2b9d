"""A worker's heartbeat goes on after an error of one beat."""

from contextlib import closing

from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.distributed.worker.heartbeat import Heartbeat
from tests.conftest import wait_until
from tests.fleets import private_fleet

SPEC = "tests.people:manager"


def test_heartbeat_survives_an_unexpected_error() -> None:
    errors: list[Exception] = [OSError(), RuntimeError(), ValueError()]

    def serves() -> bool:
        if errors:
            raise errors.pop()
        return True

    with private_fleet(SPEC, heartbeat_s=0.1) as fleet, closing(Store(fleet.settings)) as store:
        heartbeat = Heartbeat(fleet.settings, serves)
        heartbeat.begin("worker@host:1-ab", 1)
        wait_until(store.workers, "the worker counts as alive", 10)
        heartbeat.end()
        assert store.workers() == []
