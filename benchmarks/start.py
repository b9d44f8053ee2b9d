"""How long things take to start, and a file of 100 records, beside pyrmute and a loop.

    python benchmarks/start.py [--rounds 15] [--quick] [--only start short-file]

Every run is a process of its own, and each round gives everybody a turn. Imports are timed
inside of the process, the command line from outside, with the interpreter's own start. A ratio
is taken within each round; its median is what counts. Processor time moves less than wall time
where something else is running.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_USE: Final = """
from {library} import ModelManager
from pydantic import BaseModel
manager = ModelManager()
@manager.model("User", "1.0.0")
class UserV1(BaseModel):
    name: str
@manager.model("User", "2.0.0")
class UserV2(BaseModel):
    first: str
    last: str
@manager.migration("User", "1.0.0", "2.0.0")
def split(data):
    first, _, last = data["name"].partition(" ")
    return {{"first": first, "last": last}}
manager.migrate({{"name": "Ada Lovelace"}}, "User", "1.0.0", "2.0.0")
"""
_TIMED: Final = """
import time
began, spent = time.perf_counter(), time.process_time()
{program}
print(time.perf_counter() - began, time.process_time() - spent)
"""
# Appended to the program above, whose models it uses.
_LOOP: Final = """
import json
with open("short.jsonl") as lines, open("{library}.jsonl", "w") as output:
    for line in lines:
        model = manager.migrate(json.loads(line), "User", "1.0.0", "2.0.0")
        output.write(model.model_dump_json() + "\\n")
"""
_RUN: Final = (
    *("-m", "pyrmute_tasks", "run", "short.jsonl", "run.jsonl", "--overwrite"),
    *("--manager", "started_models.py:manager", "--model", "User", "--from", "1.0.0"),
    *("--to", "2.0.0"),
)
_SHORT_RECORDS: Final = 100
_OUTPUTS: Final = ("pyrmute.jsonl", "pyrmute_tasks.jsonl", "run.jsonl")
_PARTS: Final = ("start", "short-file")
_FLEET: Final = """
from pyrmute_tasks import Migrator
with Migrator({manager!r}, workers=2) as migrator:
    migrator.migrate_batch_data([{{"name": "Ada Lovelace"}}] * 5, "User", "1.0.0", "2.0.0")
"""


@dataclass
class Row:
    """Something that starts.

    Attributes:
        name: What it is called in the table.
        program: What is timed inside of a process; empty to time `command` from outside.
        command: Arguments of Python.
        beside: The rows that ratios are to.
        most: What the first ratio is to be at most; 0 if nothing is promised.
        wall: Seconds of each round.
        cpu: Processor seconds of each round, with those of child processes that were awaited.
    """

    name: str
    program: str = ""
    command: tuple[str, ...] = ()
    beside: tuple[str, ...] = ("import pyrmute",)
    most: float = 0.0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, directory: str) -> None:
        """Run it once."""
        if self.program:
            program = _TIMED.format(program=self.program)
            wall, cpu = map(float, _python(directory, "-c", program).split())
        else:
            began, before = time.perf_counter(), os.times()
            _python(directory, *self.command)
            wall, after = time.perf_counter() - began, os.times()
            cpu = after.children_user + after.children_system
            cpu -= before.children_user + before.children_system
        self.wall.append(wall)
        self.cpu.append(cpu)


def _python(directory: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=directory, capture_output=True, text=True, check=True
    )
    return ran.stdout


def start_rows(manager: Path) -> list[Row]:
    """Return the rows of imports, the command and a fleet."""
    return [
        Row("import pydantic", "from pydantic import BaseModel"),
        Row("import pyrmute", "import pyrmute"),
        Row("import pyrmute_tasks", "import pyrmute_tasks", most=1.33),
        Row("import ModelManager", "from pyrmute_tasks import ModelManager", most=1.33),
        Row("import Migrator", "from pyrmute_tasks import Migrator"),
        Row("one record, pyrmute", _USE.format(library="pyrmute")),
        Row(
            "one record, ours",
            _USE.format(library="pyrmute_tasks"),
            beside=("one record, pyrmute",),
            most=1.33,
        ),
        Row("pyrmute-tasks --help", command=("-m", "pyrmute_tasks", "--help"), most=1.67),
        Row("own fleet, five records", _FLEET.format(manager=f"{manager}:manager")),
    ]


def short_file_rows() -> list[Row]:
    """Return the rows of a file of 100 records."""
    loops = ("100 lines, our loop", "100 lines, pyrmute loop")
    return [
        Row(loops[1], command=("loop_pyrmute.py",), beside=(loops[1],)),
        Row(loops[0], command=("loop_pyrmute_tasks.py",), beside=loops[1:]),
        Row("100 lines, command", command=_RUN, beside=loops, most=1.2),
    ]


def _write_programs(directory: Path) -> Path:
    """Write the manager's module, the loops and their input; return the module."""
    for library in ("pyrmute", "pyrmute_tasks"):
        program = (_USE + _LOOP).format(library=library)
        (directory / f"loop_{library}.py").write_text(program)
    with (directory / "short.jsonl").open("w") as file:
        for index in range(_SHORT_RECORDS):
            file.write(json.dumps({"name": f"First{index} Last{index}"}) + "\n")
    manager = directory / "started_models.py"
    manager.write_text(_USE.format(library="pyrmute_tasks"))
    return manager


def _require_equal(directory: Path) -> None:
    if len({(directory / name).read_bytes() for name in _OUTPUTS}) > 1:
        sys.exit("the outputs of the 100 records differ")


def _shown(row: Row, other: Row, most: float) -> str:
    wall, cpu = (
        statistics.median(one / two for one, two in zip(mine, theirs, strict=True))
        for mine, theirs in ((row.wall, other.wall), (row.cpu, other.cpu))
    )
    bound = f"≤ {most}" if most else ""
    return (
        f"{row.name:<24} {min(row.wall):7.3f} {statistics.median(row.wall):7.3f} "
        f"{min(row.cpu):7.3f} {statistics.median(row.cpu):7.3f} {wall:7.2f} {cpu:7.2f}  "
        f"{bound:<6} of {other.name}"
    )


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="two rounds; ignore the figures")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="pt-start-") as directory:
        manager = _write_programs(Path(directory))
        found = start_rows(manager) if "start" in options.only else []
        found += short_file_rows() if "short-file" in options.only else []
        rows = {row.name: row for row in found}
        for number in range(rounds + 1):
            for row in rows.values():
                row.run(directory)
                if not number:  # the first round writes what Python caches
                    row.wall.clear()
                    row.cpu.clear()
        if "short-file" in options.only:
            _require_equal(Path(directory))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{rounds} rounds; load {load} on {os.cpu_count()} CPUs")
    print(f"{'':<24} {'wall s':>15} {'CPU s':>15} {'ratio':>15}")
    print(f"{'':<24} {'min':>7} {'median':>7} {'min':>7} {'median':>7} {'wall':>7} {'CPU':>7}")
    for row in rows.values():
        for index, beside in enumerate(row.beside):
            print(_shown(row, rows[beside], 0 if index else row.most))
    if options.quick:
        print("--quick: ignore the figures")


if __name__ == "__main__":
    main()
