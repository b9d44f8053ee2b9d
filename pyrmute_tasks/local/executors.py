"""Executors that run chunks on this machine, without a queue."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_outcome, encode_outcome
from pyrmute_tasks.errors import JobError, UnsupportedValueError
from pyrmute_tasks.wire.frames import FrameKind, encode_frame, join_packed, pack_record, unpack

__all__ = [
    "ProcessExecutor",
    "ThreadExecutor",
    "pack_or_pickle",
    "unpack_or_unpickle",
]

In = TypeVar("In")
Out = TypeVar("Out")


class ThreadExecutor(Generic[In, Out]):
    """Runs chunks in threads, for steps that wait for I/O; a context manager.

    Args:
        run: Turns a chunk into its outcome.
        workers: Number of threads.
    """

    def __init__(self, run: Callable[[Chunk[In]], Outcome[Out]], workers: int) -> None:
        self._pool = _Pool(ThreadPoolExecutor(workers, "pyrmute-tasks"))
        self._run = run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.end()

    def submit(self, chunk: Chunk[In], /) -> None:
        """Hand a chunk to a thread."""
        self._pool.submit(chunk.index, self._run, chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[Out]]:
        """Return the outcomes that have arrived; see `ChunkExecutor`."""
        return self._pool.collect(wait)

    def cancel(self, first: int) -> None:
        """Drop the chunks from index `first` on; outcomes of running ones are discarded."""
        self._pool.cancel(first)


Run: TypeAlias = Callable[[Chunk[list[Any]]], Outcome[list[bytes]]]

_Payload: TypeAlias = bytes | list[bytes]  # records: joined, unless one had to be pickled
_PICKLED: Final = b"\xc1"  # msgpack never starts with it


def pack_or_pickle(record: object) -> bytes:
    """Return a record as bytes for a process of the pool.

    Packs it, which is several times faster; pickles only what no frame can hold.

    Raises:
        UnsupportedValueError: If it can be neither packed nor pickled.
    """
    try:
        return pack_record(record)
    except UnsupportedValueError as error:
        try:
            pickled = ForkingPickler.dumps(record)
            ForkingPickler.loads(pickled)  # fail here, where the record is known
        except Exception:
            raise error from None
        return _PICKLED + pickled


def _together(records: list[bytes]) -> _Payload:
    if any(record.startswith(_PICKLED) for record in records):
        return records
    return join_packed(records)


def unpack_or_unpickle(payload: bytes | list[bytes]) -> list[Any]:
    """Return the records from the output of `pack_or_pickle`, joined or one by one."""
    if isinstance(payload, bytes):
        records: list[Any] = unpack(payload)
        return records
    return [
        ForkingPickler.loads(record[1:]) if record.startswith(_PICKLED) else unpack(record)
        for record in payload
    ]


class ProcessExecutor:
    """Runs chunks in processes, for steps that compute; a context manager.

    Records are sent as `pack_or_pickle` encodes them.

    Args:
        make_run: Called once in each process with `argument`; returns the function that turns a
            chunk into its outcome there.
        argument: For `make_run`. Unless processes are forked, both must be picklable.
        workers: Number of processes.
        context: How processes are started.
    """

    def __init__(
        self,
        make_run: Callable[[Any], Run],
        argument: object,
        workers: int,
        context: BaseContext,
    ) -> None:
        pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_process, initargs=(make_run, argument)
        )
        self._pool = _Pool(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.end()

    def submit(self, chunk: Chunk[list[bytes]], /) -> None:
        """Hand a chunk to a process.

        Raises:
            JobError: If a process of the pool was killed.
        """
        sent = replace(chunk, payload=_together(chunk.payload))  # type: ignore[arg-type]  # of another kind
        self._pool.submit(chunk.index, _run_in_process, sent)

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[Any]]]:
        """Return the outcomes that have arrived; see `ChunkExecutor`.

        Raises:
            JobError: If a process of the pool was killed.
        """
        return [_received(report, outputs) for report, outputs in self._pool.collect(wait)]

    def cancel(self, first: int) -> None:
        """Drop the chunks from index `first` on; outcomes of running ones are discarded."""
        self._pool.cancel(first)


def _received(report: bytes, outputs: _Payload) -> Outcome[list[Any]]:
    outcome: Outcome[Any] = decode_outcome(report)
    return replace(outcome, outputs=unpack_or_unpickle(outputs))


class _Pool:
    """A pool of `concurrent.futures`, indexed by chunk."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._futures: dict[Future[Any], int] = {}

    def submit(self, index: int, run: Callable[[Any], Any], argument: object) -> None:
        try:
            self._futures[self._executor.submit(run, argument)] = index
        except BrokenProcessPool as error:
            raise _pool_broken() from error

    def collect(self, wait: bool) -> list[Any]:
        done, _ = wait_for(self._futures, timeout=None if wait else 0, return_when=FIRST_COMPLETED)
        for future in done:
            del self._futures[future]
        try:
            return [future.result() for future in done]
        except BrokenProcessPool as error:
            raise _pool_broken() from error

    def cancel(self, first: int) -> None:
        for future, index in list(self._futures.items()):
            if index >= first:
                future.cancel()
                del self._futures[future]

    def end(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _pool_broken() -> JobError:
    return JobError(
        "a process that ran a chunk was killed, or a step ended it: a record may need more memory "
        "than there is, or a step may call os._exit; Migrator runs it on workers that survive that"
    )


# --- in a process of the pool -------------------------------------------------------------

_NO_FRAME: Final = encode_frame(FrameKind.OBJECTS, 0, b"")

_runs: Final[list[Run]] = []  # this process's own, set once when it starts


def _start_process(make_run: Callable[[Any], Run], argument: object) -> None:
    _runs.append(make_run(argument))


def _run_in_process(chunk: Chunk[Any]) -> tuple[bytes, _Payload]:
    outcome: Outcome[Any] = _runs[-1](replace(chunk, payload=unpack_or_unpickle(chunk.payload)))
    return encode_outcome(replace(outcome, outputs=_NO_FRAME)), _together(outcome.outputs)
