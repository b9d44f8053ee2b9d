"""The workers of a queue, read from their heartbeats."""

from typing import Final

from pyrmute_tasks.distributed.protocol import WorkerInfo, read_heartbeat
from pyrmute_tasks.distributed.store.connection import StoreConnection, warn_rejected
from pyrmute_tasks.distributed.store.keys import workers_key
from pyrmute_tasks.errors import FrameError, SignatureError
from pyrmute_tasks.settings import Settings
from pyrmute_tasks.wire.signing import SECRET_VARIABLE, Sealed

__all__ = ["FleetStore"]

_FORGET_WORKER_S: Final = 3600.0


class FleetStore(StoreConnection):
    """The store's view of its workers.

    Args:
        settings: Its URL, and the queue.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._rejected_workers: dict[bytes, str] = {}  # that live, and why they do not count

    def workers(self) -> list[WorkerInfo]:
        """Return the workers of the queue with a fresh heartbeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(workers_key(self._settings.queue))
            now, beats = pipe.execute()
        return self._read_beats(beats, now)

    def _read_beats(self, beats: dict[bytes, bytes], now: tuple[int, int]) -> list[WorkerInfo]:
        found, gone = [], []
        rejected: dict[bytes, str] = {}
        garbled = 0
        for name, value in beats.items():
            try:
                beat = self._opened_beat(name, value)
                info = read_heartbeat(name, beat, now[0] + now[1] / 1e6)
            except SignatureError as error:
                rejected[name] = str(error)
                if name not in self._rejected_workers:
                    warn_rejected("heartbeat", str(error), queue=self._settings.queue)
                continue
            except (FrameError, LookupError, TypeError, ValueError):
                garbled += 1
                continue
            if info.is_fresh:
                found.append(info)
            elif info.silent_s > _FORGET_WORKER_S:
                gone.append(name)
        self._rejected_workers = rejected
        self._tell_garbled("heartbeat", garbled, queue=self._settings.queue)
        if gone:  # killed before they could deregister
            self._redis.hdel(workers_key(self._settings.queue), *gone)
        return found

    def _opened_beat(self, name: bytes, value: bytes) -> bytes:
        seen, _, sealed = value.partition(b" ")
        worker = name.decode(errors="replace")
        told = self._signer.open(Sealed.HEARTBEAT, self._settings.queue, worker, sealed)
        return b" ".join((seen, told))

    def rejected_workers(self) -> str:
        """Explain why workers seen in the last survey do not count; empty if all do."""
        if not self._rejected_workers:
            return ""
        why = ", ".join(sorted(set(self._rejected_workers.values())))
        return (
            f"{len(self._rejected_workers)} did, but their heartbeats were rejected ({why}): give "
            f"producers and workers the same {SECRET_VARIABLE}"
        )
