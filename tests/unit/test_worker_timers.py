from types import SimpleNamespace

from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from pyrmute_tasks.distributed.internals.kombu_transport import forget_cancelled
from pyrmute_tasks.distributed.worker.service import Housekeeping


def test_cancelled_timers_are_removed_and_others_stay_in_order() -> None:
    timer = Timer()
    entries = [timer.call_after(1000 - number, print, (number,)) for number in range(100)]
    for entry in entries[::2]:
        entry.cancel()
    forget_cancelled(timer)
    left = [item.entry.args[0] for item in timer.queue]
    assert left == list(range(99, 0, -2))


def test_event_loop_removes_cancelled_timers() -> None:
    hub = Hub()
    looked_after: list[bool] = []
    children = SimpleNamespace(_pool=[])  # none is frozen
    pool = SimpleNamespace(maintain_pool=lambda: looked_after.append(True), _pool=children)
    parent = SimpleNamespace(hub=hub, pool=pool)
    Housekeeping(parent).start(parent)
    for number in range(100):
        hub.call_later(1000 + number, print).cancel()
    for item in list(hub.timer.queue):
        if not item.entry.canceled:
            item.entry()
    assert looked_after == [True]
    assert not [item for item in hub.timer.queue if item.entry.canceled]
