"""What all contenders have in common: their command line, the clock, and what they print.

They print one line of JSON::

    {"records": …, "seconds": …, "start_s": …, "peak_rss_bytes": …, "output": "sha256:…"}

The clock runs from the opening of the input until the output is on disk; for those that take
and give objects, over the whole stream. Workers are started before, which is ``start_s``.
The memory is the peak of the process that reads and writes. ``output`` is a digest, null with
``--no-digest``; those who let go of the objects they get make them once more for it.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

from benchmarks import inputs, processes
from benchmarks.workloads import NAMES, Workload

__all__ = ["PARTITIONS", "WORKERS", "Contest", "Lap", "compete", "to_disk"]

WORKERS: Final = 2
PARTITIONS: Final = 16
"""Into how many pieces Dask and Ray are told to cut the input: eight a worker."""


@dataclass(frozen=True)
class Contest:
    """What is to be done.

    Attributes:
        workload: The models and steps.
        source: JSON lines.
        target: Where to write; a file or a directory that does not exist yet.
        chunk_size: Records a task; None leaves it to the contender.
        raw: Do not validate; for contenders that give objects.
        options: Further options of the contender.
    """

    workload: Workload
    source: Path
    target: Path
    chunk_size: int | None
    raw: bool
    options: frozenset[str] = frozenset()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The input as dicts."""
        with self.source.open("rb") as lines:
            return [json.loads(line) for line in lines]


@dataclass(frozen=True, slots=True)
class Lap:
    """A contender that is ready.

    Attributes:
        run: What the clock runs for; returns how many records came out.
        digest: Called afterwards; returns the digest of the output.
        more: Called afterwards; returns what else to print.
    """

    run: Callable[[], int]
    digest: Callable[[], str]
    more: Callable[[], dict[str, Any]] = field(default=dict)


def compete(
    get_ready: Callable[[Contest], AbstractContextManager[Lap]], *, objects: bool = False
) -> None:
    """Run one contender as the command line says, and print what it took.

    Args:
        get_ready: Starts what the contender needs.
        objects: Whether it takes dicts, which then are read before anything is started.
    """
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        contest = Contest(
            Workload(options.workload),
            inputs.source_of(options.workload, options.records),
            Path(name) / "output",
            options.chunk_size,
            options.raw,
            frozenset(options.options),
        )
        if objects:
            len(contest.rows)
        print(json.dumps(_measure(get_ready, contest, with_digest=not options.no_digest)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run one contender and print what it took.")
    parser.add_argument("workload", choices=NAMES)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--chunk-size", type=int, help="records a task")
    parser.add_argument("--raw", action="store_true", help="objects: do not validate")
    parser.add_argument(
        "--option", action="append", default=[], dest="options", help="what only one knows"
    )
    parser.add_argument("--no-digest", action="store_true", help="do not look at the output")
    return parser.parse_args()


def _measure(
    get_ready: Callable[[Contest], AbstractContextManager[Lap]],
    contest: Contest,
    *,
    with_digest: bool,
) -> dict[str, Any]:
    began = time.perf_counter()
    with get_ready(contest) as lap:
        gc.collect()
        gc.freeze()  # no contender pays for collecting what was loaded before
        ready = time.perf_counter()
        records = lap.run()
        seconds = time.perf_counter() - ready
        peak = processes.peak_bytes()
        more = lap.more()
        digest = lap.digest() if with_digest else None
    return {
        "records": records,
        "seconds": seconds,
        "start_s": ready - began,
        "peak_rss_bytes": peak,
        **more,
        "output": digest,
    }


def to_disk(file: IO[Any]) -> None:
    """See that a file is on disk, before the clock stops: this package's command does so."""
    file.flush()
    os.fsync(file.fileno())
