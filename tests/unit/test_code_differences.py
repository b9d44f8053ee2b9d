"""Fingerprint trees on the wire, in messages and on the command line."""

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from pyrmute_tasks import ModelManager
from pyrmute_tasks.cli.fingerprint import fingerprint
from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.plans.fingerprint.differences import compare_trees, describe_held, root_of
from pyrmute_tasks.plans.fingerprint.tree import Entry, FingerprintTree
from tests.people import manager as people

HOP = ("Person", "1.0.0", "3.0.0")
TREE = people.plan(*HOP).fingerprint_tree
MODULE = """
import functools, itertools, logging, threading
from pydantic import BaseModel, field_validator
from pyrmute_tasks import ModelManager

manager = ModelManager()
seen = []
number = 0
log = logging.getLogger("memo")
lock = threading.Lock()
numbers = itertools.count()

@manager.model("A", "1.0.0")
class A1(BaseModel):
    n: int

@manager.model("A", "2.0.0")
class A2(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def remember(cls, n):
        seen.append(n)
        return n

class Service:
    calls = 0

    def __init__(self):
        self.cache = {}
        self.local = threading.local()

    def get(self, key):
        Service.calls += 1
        self.cache[key] = self
        self.last = key

service = Service()

@functools.lru_cache
def square(n):
    return n * n

def closed():
    memo = {}
    def fill(data):
        memo[data["n"]] = memo
    return fill

fill = closed()

@manager.migration("A", "1.0.0", "2.0.0")
def step(data, _cache={}):
    global number
    number += 1
    _cache[data["n"]] = _cache
    step.count = number
    with lock:
        next(numbers)
    service.get(data["n"])
    square(data["n"])
    fill(data)
    return dict(data)
"""


def load(text: str, name: str = "memo_module") -> Any:
    module = ModuleType(name)
    exec(compile(text, f"{name}.py", "exec"), vars(module))  # noqa: S102  # our own text
    return module


def test_memos_that_fill_change_nothing() -> None:
    fresh, used = load(MODULE), load(MODULE)
    for n in range(100):
        used.manager.migrate({"n": n}, "A", "1.0.0", "2.0.0")
    hop = ("A", "1.0.0", "2.0.0")
    assert used.manager.plan(*hop).fingerprint == fresh.manager.plan(*hop).fingerprint
    assert used.seen


def test_first_plan_captures_all_versions_of_its_model() -> None:
    fresh, used = load(MODULE), load(MODULE)
    used.manager.plan("A", "2.0.0", "2.0.0")
    used.step({"n": 1})
    hop = ("A", "1.0.0", "2.0.0")
    assert used.manager.plan(*hop).fingerprint == fresh.manager.plan(*hop).fingerprint


SHARING = """
import functools
from pydantic import BaseModel
from pyrmute_tasks import ModelManager

manager = ModelManager()

class Service:
    def __init__(self, seen):
        self.seen = seen

    def a(self, data):
        self.seen[data["n"]] = None
        return self.b(data)

    def b(self, data):
        self.last = data["n"]
        return dict(data)

def closed():
    memo = {}
    def fill(data, _lists=lists):
        memo[data["n"]] = 1
        lists.append(data["n"])
        return dict(data)
    def read(data, _lists=lists):
        return dict(data, known=len(memo))
    return fill, read

lists = []
service = Service({})
fill, read = closed()
called = functools.partial(Service.b, service)

for name in ("A1", "B1", "A2", "B2", "B3"):
    for version in ("1.0.0", "2.0.0"):
        manager.model(name, version)(type("M", (BaseModel,), {"__module__": __name__}))

pairs = {"A1": service.a, "B1": service.b, "A2": fill, "B2": read, "B3": called}
for name, step in pairs.items():
    manager.migration(name, "1.0.0", "2.0.0")(step)
"""


@pytest.mark.parametrize("name", ["B1", "B2", "B3"])
def test_memo_shared_with_another_models_step_changes_nothing(name: str) -> None:
    fresh, used = load(SHARING), load(SHARING)
    hop = ("1.0.0", "2.0.0")
    for n in range(3):
        used.manager.migrate_data({"n": n}, "A1", *hop)
        used.manager.migrate_data({"n": n}, "A2", *hop)
    assert used.service.seen
    assert used.lists
    assert used.manager.plan(name, *hop).fingerprint == fresh.manager.plan(name, *hop).fingerprint


def test_order_of_plans_changes_nothing() -> None:
    names = ("A1", "B1", "A2", "B2", "B3")
    found = []
    for order in (names, names[::-1], None):
        manager = load(SHARING).manager
        if order is None:
            manager.capture_code()
        plans = {name: manager.plan(name, "1.0.0", "2.0.0") for name in order or names}
        found.append({name: plans[name].fingerprint for name in names})
    assert found[0] == found[1] == found[2]


def test_helper_defined_after_the_first_plan_counts() -> None:
    early = "manager.plan('A', '1.0.0', '2.0.0')\n"
    before = MODULE.replace("fill(data)\n    return", "later(data)\n    return")
    trees = [
        load(f"{before}{early}def later(data):\n    return {n}\n").manager.plan(
            "A", "1.0.0", "2.0.0"
        )
        for n in (1, 2)
    ]
    names = [d.name for d in compare_trees(*(plan.fingerprint_tree for plan in trees))]
    assert names == ["function memo_module.later"]


def test_named_package_counts_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.syspath_prepend(str(tmp_path))
    for packages in ((), ("shared_code",)):
        for number in (1, 2):
            monkeypatch.delitem(sys.modules, "shared_code", raising=False)
            (tmp_path / "shared_code.py").write_text(
                f"def f(d):\n    return {number} + 0*{number}\n"
            )
            os.utime(tmp_path / "shared_code.py", (number, number))
            text = MODULE.replace("ModelManager()", f"ModelManager(code_packages={packages!r})")
            text = text.replace("import functools", "import shared_code, functools")
            text = text.replace("fill(data)\n    return", "shared_code.f(data)\n    return")
            found.append(load(text).manager.plan("A", "1.0.0", "2.0.0").fingerprint_tree)
    assert found[0].root == found[1].root
    assert any(entry.name.startswith("library shared_code") for entry in found[0].entries)
    differences = compare_trees(found[2], found[3])
    assert [d.name for d in differences] == ["function shared_code.f"]


def test_module_by_name_and_by_path_have_one_fingerprint() -> None:
    program = (
        "import sys; from pyrmute_tasks.pyrmute_adapter import load_manager; "
        "print(load_manager(sys.argv[1]).plan('Person', '1.0.0', '3.0.0').fingerprint)"
    )
    for spec in ("tests.people:manager", "tests/people.py:manager"):
        done = subprocess.run(
            [sys.executable, "-c", program, spec],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == TREE.root


def test_tree_survives_the_wire() -> None:
    held = TREE.to_wire()
    assert root_of(held) == TREE.root
    assert compare_trees(TREE, FingerprintTree.from_wire(held)) == []
    assert [e.name for e in FingerprintTree.from_wire(held).entries] == [
        e.name for e in TREE.entries
    ]
    assert "people.py" not in zlib.decompress(base64.b85decode(held.partition(" ")[2])).decode()


def test_too_long_tree_is_sent_as_its_root() -> None:
    entries = tuple(
        Entry(f"function f{at}.{at * 7919}", "", f"{at * 999983:012x}"[:12]) for at in range(20000)
    )
    tree = FingerprintTree("0123456789abcdef", entries, 0)
    assert tree.to_wire() == tree.root
    assert describe_held(TREE, tree.to_wire()) == tree.root


def wire(data: object) -> str:
    packed = base64.b85encode(zlib.compress(json.dumps(data).encode())).decode()
    return f"0123456789abcdef {packed}"


BOMB = "fifty megabytes of spaces"
HOSTILE = [
    "",
    "0123456789abcdef",
    "0123456789abcdef ",
    "0123456789abcdef zzz\x1b[31m",
    "0123456789abcdef " + "A" * 100_000,
    "0123456789abcdef " + base64.b85encode(zlib.compress(b"[" * 100_000)).decode(),
    BOMB,
    wire([]),
    wire({"fingerprint": "0123456789abcdef", "tops": 9, "entries": []}),
    wire({"fingerprint": "ffffffffffffffff", "tops": 0, "entries": []}),
    wire({"fingerprint": "0123456789abcdef", "tops": 0, "entries": [["a", "", "b", [1]]]}),
    wire({"fingerprint": "0123456789abcdef", "tops": 0, "entries": [["a", "", "b", ["x"]]]}),
    wire({"fingerprint": "0123456789abcdef", "tops": True, "entries": [["a" * 999, "", "b", []]]}),
    wire({"fingerprint": "0123456789abcdef", "tops": 0, "entries": {"a": 1}}),
    wire({"fingerprint": "0123456789abcdef", "tops": 0, "entries": [1]}),
    "Model 'Person' not found \n in registry\x1b[0m" * 100,
]


@pytest.mark.parametrize("held", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_tree_is_rejected(held: str) -> None:
    if held == BOMB:  # made here, as every process that collects would make it
        packed = zlib.compress(b" " * 50_000_000)
        held = f"0123456789abcdef {base64.b85encode(packed).decode()}"
    with pytest.raises(FrameError):
        FingerprintTree.from_wire(held)
    told = describe_held(TREE, held)
    assert len(told) <= 301
    assert told.isprintable()


def test_hostile_names_are_printable_and_few() -> None:
    entries = [[f"function \x1b[31m{at}\n", "", "b", []] for at in range(1000)]
    told = describe_held(
        TREE, wire({"fingerprint": "0123456789abcdef", "tops": 1000, "entries": entries})
    )
    assert told.isprintable()
    assert len(told) < 3000
    assert "more)" in told


def test_command_prints_and_compares(tmp_path: Path) -> None:
    runner = CliRunner()
    options = ["--manager", "tests.people:manager", "--model", "Person"]
    shown = runner.invoke(fingerprint, options)
    assert shown.exit_code == 0
    assert TREE.root in shown.output
    assert "function tests.people.obey (tests/people.py:" in shown.output
    told = runner.invoke(fingerprint, [*options, "--json"])
    file = tmp_path / "there.json"
    file.write_text(told.output)
    same = runner.invoke(fingerprint, [*options, "--compare", str(file)])
    assert (same.exit_code, same.output) == (0, f"the same: {TREE.root}\n")
    data = json.loads(told.output)
    for entry in data["entries"]:
        if entry[0] == "function tests.people.obey":
            entry[2] = "000000000000"
    file.write_text(json.dumps({**data, "fingerprint": "0" * 16}))
    other = runner.invoke(fingerprint, [*options, "--compare", str(file)])
    assert other.exit_code == 1
    assert "step Person 1.0.0 → 2.0.0 reaches function tests.people.obey" in other.output
    file.write_text("[]")
    wrong = runner.invoke(fingerprint, [*options, "--compare", str(file)])
    assert wrong.exit_code == 2
    assert "was not written by" in wrong.output
    both = runner.invoke(fingerprint, [*options, "--json", "--compare", str(file)])
    assert both.exit_code == 2
    assert "exclude each other" in both.output


def test_equal_managers_have_no_differences() -> None:
    assert ModelManager(code_packages=("x",)) is not None
    assert compare_trees(TREE, TREE) == []
