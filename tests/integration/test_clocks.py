"""A store whose clock is set back: earlier heartbeats and claims expire no later than usual."""

import time
from contextlib import closing

from pyrmute_tasks.distributed.store import Store
from pyrmute_tasks.wire.frames import pack
from tests.fleets import QUEUE, private_fleet

BACK_S = 3600


def test_heartbeat_from_the_future_is_stale() -> None:
    future = int(time.time()) + BACK_S
    with private_fleet("tests.people:manager") as fleet, closing(Store(fleet.settings)) as store:
        store.beat("lives", 1)
        told = pack({"slots": 1, "running": [], "every_s": 1.0})
        fleet.store.hset(f"pt:workers:{QUEUE}", "died before", f"{future}.5 ".encode() + told)
        assert [worker.name for worker in store.workers()] == ["lives"]
        fleet.store.hset("pt:{0123abcd}:claims", "7", f"{future} task died-before")
        assert store.survey("0123abcd").claims["7"].age_s > BACK_S - 60
        fleet.store.zadd(f"pt:jobs:{QUEUE}", {"died before": future})
        fleet.store.hset("pt:{0123abcd}:job", "spec", "")
        assert store.survey("0123abcd", is_busy=True).others == 0
