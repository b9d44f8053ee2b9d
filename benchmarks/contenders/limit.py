"""The limit: the same compiled plan in two bare processes, with no queue between.

python -m benchmarks.contenders.limit small
"""

from contextlib import AbstractContextManager

from benchmarks.contenders.blocks import Block, over_blocks
from benchmarks.contenders.contest import Contest, Lap, compete
from pyrmute_tasks.plans.plan import MigrationPlan

_plans: list[MigrationPlan] = []  # this process's; a pool's functions take blocks only


def migrate(block: bytes) -> Block:
    lines, count, failure = _plans[0].migrate_lines(block)
    if failure is not None:
        raise failure.exception()
    return lines, count


def get_ready(contest: Contest) -> AbstractContextManager[Lap]:
    return over_blocks(contest, migrate, lambda: _plans.append(contest.workload.plan))


if __name__ == "__main__":
    compete(get_ready)
