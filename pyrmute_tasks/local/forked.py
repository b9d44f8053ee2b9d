"""Runs chunks in a fork of this process, for as long as starting a fleet would take.

The fork has all that this process has imported, so it begins at once; and it is another process,
so a step that ends it, hangs or takes long costs only the attempt.
"""

import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Self

from pyrmute_tasks.engine.chunks import Chunk, Outcome, decode_outcome, encode_outcome
from pyrmute_tasks.wire.frames import Frame

__all__ = ["DoneExecutor", "may_fork", "run_forked"]

_SIZE: Final = struct.Struct("!Q")
_ALL: Final = _SIZE.pack(0)  # a step may end its process with status 0
_READ_BYTES: Final = 1024 * 1024
_LAST_RESORT: Final = 2.0  # of the time limit: then the fork is ended even without its parent


def may_fork() -> bool:
    """Whether a fork of this process can be relied on: it has one thread."""
    return hasattr(os, "fork") and threading.active_count() == 1


def run_forked(
    chunks: Sequence[Chunk[bytes]],
    run: Callable[[Chunk[bytes]], Outcome[bytes]],
    within_s: float,
) -> Mapping[int, Outcome[Frame]] | None:
    """Run chunks in a fork; None if it did not finish them in time, or at all.

    Args:
        chunks: The chunks.
        run: Runs one of them. The first outcome with a failure that ends the job is the last one.
        within_s: Time limit.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _run_all(chunks, run, writer, within_s)
    os.close(writer)
    data, status = None, 1
    try:
        data = _read(reader, time.monotonic() + within_s)
    finally:
        os.close(reader)
        if data is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if data is None or status != 0 or not data.endswith(_ALL):
        return None
    outcomes = [decode_outcome(each) for each in _split(data.removesuffix(_ALL))]
    return {outcome.index: outcome for outcome in outcomes}


def _run_all(
    chunks: Iterable[Chunk[bytes]],
    run: Callable[[Chunk[bytes]], Outcome[bytes]],
    writer: int,
    within_s: float,
) -> NoReturn:
    """Write the outcomes of chunks, and end this process."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _LAST_RESORT * within_s)
        nowhere = os.open(os.devnull, os.O_WRONLY)  # what steps print is no output of the run
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with open(writer, "wb") as file:
            for chunk in chunks:
                outcome = run(chunk)
                data = encode_outcome(outcome)
                file.write(_SIZE.pack(len(data)) + data)
                if outcome.ends_early(chunk):
                    break
            file.write(_ALL)
        status = 0
    finally:
        # Whatever it was, the fleet meets it again; and nothing of the parent's ends here.
        os._exit(status)


def _read(reader: int, ends_at: float) -> bytes | None:
    """Return all that is written until the other end closes; None if it takes too long."""
    blocks: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], (), (), max(ends_at - time.monotonic(), 0.0))
        if not ready:
            return None
        block = os.read(reader, _READ_BYTES)
        if not block:
            return b"".join(blocks)
        blocks.append(block)


def _split(data: bytes) -> Iterator[bytes]:
    begin = 0
    while begin < len(data):
        (size,) = _SIZE.unpack_from(data, begin)
        begin += _SIZE.size
        yield data[begin : begin + size]
        begin += size


class DoneExecutor:
    """Hands out outcomes that are known; a `JobExecutor`.

    Args:
        outcomes: The outcomes, by chunk.
    """

    slots = jobs = 1

    def __init__(self, outcomes: Mapping[int, Outcome[Frame]]) -> None:
        self._outcomes = outcomes
        self._ready: list[Outcome[Frame]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ready.clear()

    def submit(self, chunk: Chunk[Any], /) -> None:
        """Get a chunk's outcome ready, if there is one: behind a failure there is none."""
        if chunk.index in self._outcomes:
            self._ready.append(self._outcomes[chunk.index])

    def collect(self, *, wait: bool) -> Iterable[Outcome[Frame]]:
        """Return the outcomes of the chunks submitted since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, first: int) -> None:
        """Forget the chunks from index `first` on."""
        self._ready = [outcome for outcome in self._ready if outcome.index < first]
