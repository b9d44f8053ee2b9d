"""pyrmute, file to file, in two bare processes.

python -m benchmarks.contenders.pyrmute_pool small
"""

from contextlib import AbstractContextManager

from benchmarks.contenders.blocks import Block, over_blocks
from benchmarks.contenders.contest import Contest, Lap, compete
from benchmarks.workloads import pyrmute_lines, pyrmute_manager

_names: list[str] = []  # of this process's workload; a pool's functions take blocks only


def migrate(block: bytes) -> Block:
    texts = list(pyrmute_lines(_names[0], block.splitlines()))
    return "".join(f"{text}\n" for text in texts).encode(), len(texts)


def get_ready(contest: Contest) -> AbstractContextManager[Lap]:
    name = contest.workload.name
    pyrmute_manager(name)
    return over_blocks(contest, migrate, lambda: _names.append(name))


if __name__ == "__main__":
    compete(get_ready)
