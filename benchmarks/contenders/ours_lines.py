"""This package, file to file: what ``pyrmute-tasks run`` does.

python -m benchmarks.contenders.ours_lines small [--chunk-size 100] [--option parts]
"""

import enum
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks import digests
from benchmarks.contenders.contest import WORKERS, Contest, Lap, compete
from benchmarks.contenders.fleet import our_fleet
from benchmarks.contenders.log_time import LogTime
from pyrmute_tasks import JobReport


class Option(enum.StrEnum):
    """What differs from the command's defaults."""

    PARTS = "parts"  # a folder of parts instead of one file
    ALWAYS = "always"  # by reference, however small the file is
    NEVER = "never"  # through the producer
    NO_LOG = "no-log"
    SKIP = "skip"  # records that fail, into a file of rejects


@contextmanager
def get_ready(contest: Contest) -> Iterator[Lap]:
    options = {Option(option) for option in contest.options}
    target = contest.target
    ways = sorted(options & {Option.ALWAYS, Option.NEVER})
    skips = Option.SKIP in options
    reports: list[JobReport] = []
    with ExitStack() as stack:
        fleet = stack.enter_context(our_fleet(contest.workload, WORKERS))
        log_time = stack.enter_context(LogTime())

        def run() -> int:
            report = fleet.migrator.migrate_file(
                contest.source,
                f"{target}/" if Option.PARTS in options else target,
                *contest.workload.hop,
                chunk_size=contest.chunk_size,
                by_reference=ways[0] if ways else "auto",
                on_error="skip" if skips else "raise",
                rejects=target.with_name("rejects") if skips else None,
                log=Option.NO_LOG not in options,
            )
            reports.append(report)
            return report.records

        def digest() -> str:
            parts = sorted(target.glob("part-*")) if target.is_dir() else [target]
            return digests.of_parts(parts)

        yield Lap(
            lambda: fleet.timed(run),
            digest,
            lambda: {
                "server_peak_bytes": fleet.server.peak_bytes(),
                "cpu_s": fleet.spent,
                "coordinator_share": fleet.coordinator_share,
                "log_share": log_time.seconds / reports[0].seconds if reports else 0.0,
            },
        )


if __name__ == "__main__":
    compete(get_ready)
