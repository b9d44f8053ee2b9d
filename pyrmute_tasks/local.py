"""Executors that run chunks on this machine, without a queue."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from dataclasses import replace
from itertools import groupby
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from pyrmute_tasks.chunks import Chunk, Outcome, decode_outcome, encode_outcome, pack_records
from pyrmute_tasks.codec import FrameKind, encode_frame, join_packed, pack_record, unpack
from pyrmute_tasks.errors import ConfigurationError, JobError, UnsupportedValueError
from pyrmute_tasks.failures import RecordFailure, Stage

__all__ = [
    "InlineExecutor",
    "ProcessExecutor",
    "ThreadExecutor",
    "Travelling",
    "check_workers",
    "pack_or_pickle",
    "travelling",
    "unpack_or_unpickle",
    "usable_cpus",
]

In = TypeVar("In")
Out = TypeVar("Out")


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(max_workers: int | None) -> int:
    """Return how many workers to use; None means one for each usable CPU.

    Raises:
        ConfigurationError: If it is not a positive integer.
    """
    if max_workers is None:
        return usable_cpus()
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigurationError(f"max_workers must be a positive integer, not {max_workers!r}")
    return max_workers


class InlineExecutor(Generic[In, Out]):
    """Runs chunks in the calling thread, one for each time an outcome is asked for.

    Args:
        run: What turns a chunk into its outcome.
    """

    def __init__(self, run: Callable[[Chunk[In]], Outcome[Out]]) -> None:
        self._run = run
        self._pending: deque[Chunk[In]] = deque()

    def submit(self, chunk: Chunk[In], /) -> None:
        """Queue a chunk."""
        self._pending.append(chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[Out]]:
        """Run the next chunk, if `wait` says that its outcome is needed now."""
        return (self._run(self._pending.popleft()),) if wait else ()

    def cancel(self, first: int) -> None:
        """Drop the queued chunks from index `first` on."""
        self._pending = deque(chunk for chunk in self._pending if chunk.index < first)


class ThreadExecutor(Generic[In, Out]):
    """Runs chunks in threads, for steps that wait for something; a context manager.

    Args:
        run: What turns a chunk into its outcome.
        workers: How many threads.
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
        """Return the outcomes that are there; see `ChunkExecutor`."""
        return self._pool.collect(wait)

    def cancel(self, first: int) -> None:
        """Drop the chunks from index `first` on; those that run end in vain."""
        self._pool.cancel(first)


Travelling: TypeAlias = bytes | list[bytes]
"""Records on the way between processes: packed together, or each as `pack_or_pickle` does."""

Run: TypeAlias = Callable[[Chunk[list[Any]]], Outcome[list[Any]]]


class ProcessExecutor:
    """Runs chunks of records in processes, for steps that compute; a context manager.

    Records travel as frames, which are made and read several times faster than pickles;
    only what no frame can hold is left to the pool to pickle.

    Args:
        make_run: Called once in each process with `argument`; returns what turns a chunk
            into its outcome there.
        argument: For `make_run`. Where processes are not forked, both must be picklable.
        workers: How many processes.
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
            workers, mp_context=context, initializer=_begin, initargs=(make_run, argument)
        )
        self._pool = _Pool(pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.end()

    def submit(self, chunk: Chunk[Travelling], /) -> None:
        """Hand a chunk to a process, best as `travelling` returns it.

        Raises:
            JobError: If a process of the pool has been killed.
        """
        self._pool.submit(chunk.index, _run_travelled, chunk)

    def collect(self, *, wait: bool) -> Iterable[Outcome[list[Any]]]:
        """Return the outcomes that are there; see `ChunkExecutor`.

        Raises:
            JobError: If a process of the pool has been killed.
        """
        return [_arrived(report, outputs) for report, outputs in self._pool.collect(wait)]

    def cancel(self, first: int) -> None:
        """Drop the chunks from index `first` on; those that run end in vain."""
        self._pool.cancel(first)


def pack_or_pickle(record: object) -> bytes:
    """Return a record as bytes for a process of this machine's own.

    What no frame can hold is pickled; the records beside it are not affected.

    Raises:
        UnsupportedValueError: If it can neither be packed nor pickled.
    """
    try:
        return pack_record(record)
    except UnsupportedValueError as error:
        try:
            return _PICKLED + bytes(ForkingPickler.dumps(record))
        except Exception:
            raise error from None


def unpack_or_unpickle(records: Sequence[bytes]) -> list[Any]:
    """Return the records that `pack_or_pickle` made bytes of, in this machine's processes."""
    found: list[Any] = []
    for pickled, some in groupby(records, lambda data: data.startswith(_PICKLED)):
        if pickled:
            found.extend(ForkingPickler.loads(data[1:]) for data in some)
        else:
            found.extend(unpack(join_packed(list(some))))
    return found


_PICKLED: Final = b"\xc1"  # the one byte that msgpack never begins with


def travelling(chunk: Chunk[list[Any]]) -> Chunk[Travelling]:
    """Return a chunk as it travels to a process of the pool.

    Raises:
        UnsupportedValueError: If a record can neither be framed nor pickled; it knows the
            record's index.
    """
    try:
        payload: Travelling = pack_records(chunk.payload, chunk.start)
    except UnsupportedValueError:
        payload = _each_packed(chunk.payload, chunk.start)
    return Chunk(chunk.index, chunk.start, chunk.count, payload, 0, chunk.origin)


def _each_packed(records: list[Any], start: int) -> list[bytes]:
    packed = []
    for index, record in enumerate(records, start):
        try:
            packed.append(pack_or_pickle(record))
        except UnsupportedValueError as error:
            error.record_index = index
            error.add_note(f"record {index}")
            raise
    return packed


def _arrived(report: bytes, outputs: Travelling) -> Outcome[list[Any]]:
    outcome: Outcome[Any] = decode_outcome(report)
    return replace(outcome, outputs=_unpack(outputs))


class _Pool:
    """A pool of `concurrent.futures`, by chunk."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._futures: dict[Future[Any], int] = {}

    def submit(self, index: int, run: Callable[[Any], Any], argument: object) -> None:
        try:
            self._futures[self._executor.submit(run, argument)] = index
        except BrokenProcessPool as error:
            raise _broken() from error

    def collect(self, wait: bool) -> list[Any]:
        done, _ = wait_for(self._futures, timeout=None if wait else 0, return_when=FIRST_COMPLETED)
        for future in done:
            del self._futures[future]
        try:
            return [future.result() for future in done]
        except BrokenProcessPool as error:
            raise _broken() from error

    def cancel(self, first: int) -> None:
        for future, index in list(self._futures.items()):
            if index >= first:
                future.cancel()
                del self._futures[future]

    def end(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _broken() -> JobError:
    return JobError(
        "a process that ran a chunk was killed, or a step ended it: a record may need more memory "
        "than there is, or a step may call os._exit; Migrator runs it on workers that survive that"
    )


# --- in a process of the pool -------------------------------------------------------------

_NO_FRAME: Final = encode_frame(FrameKind.OBJECTS, 0, b"")

_runs: Final[list[Run]] = []  # this process's own, set once when it begins


def _begin(make_run: Callable[[Any], Run], argument: object) -> None:
    _runs.append(make_run(argument))


def _run_travelled(chunk: Chunk[Any]) -> tuple[bytes, Travelling]:
    outcome: Outcome[Any] = _runs[-1](replace(chunk, payload=_unpack(chunk.payload)))
    outputs: Travelling
    try:
        outputs = pack_records(outcome.outputs, chunk.start)
    except UnsupportedValueError:
        outcome, outputs = _packed_so_far(outcome, chunk.start)
    return encode_outcome(replace(outcome, outputs=_NO_FRAME)), outputs


def _packed_so_far(outcome: Outcome[Any], start: int) -> tuple[Outcome[Any], list[bytes]]:
    packed: list[bytes] = []
    try:
        packed.extend(map(pack_or_pickle, outcome.outputs))
    except UnsupportedValueError as error:
        failure = RecordFailure.of(start + len(packed), Stage.ENCODE, "", error)
        return replace(outcome, count=len(packed), failure=failure), packed
    return outcome, packed


def _unpack(travelled: Travelling) -> list[Any]:
    if isinstance(travelled, list):
        return unpack_or_unpickle(travelled)
    return unpack(travelled)  # type: ignore[no-any-return]  # it was packed from a list
