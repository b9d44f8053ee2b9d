from kombu.asynchronous.timer import Timer

from pyrmute_tasks.distributed.worker import forget_cancelled


def test_cancelled_timers_are_forgotten_and_the_others_stay_in_order() -> None:
    timer = Timer()
    entries = [timer.call_after(1000 - number, print, (number,)) for number in range(100)]
    for entry in entries[::2]:
        entry.cancel()
    forget_cancelled(timer)
    left = [item.entry.args[0] for item in timer.queue]
    assert left == list(range(99, 0, -2))
