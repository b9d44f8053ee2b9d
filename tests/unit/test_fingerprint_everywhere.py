"""The same code has the same fingerprint in every process, and other code another one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from pyrmute_tasks import ModelManager

MODULE = '''
import datetime as dt, enum, functools, re
from typing import Annotated, Literal
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field, field_validator
from pyrmute_tasks import ModelManager

manager = ModelManager()

class Color(enum.Enum):
    RED = 1
    BLUE = 2

class Thing:
    def __init__(self, weight):
        self.weight = weight

class Plain(BaseModel):
    words: frozenset[str] = frozenset({"a", "b", "c", "d"})
    colors: dict[Color, set[str]] = {Color.RED: {"x", "y", "z"}}

def positive(value):
    return abs(value)

@manager.model("Part", "1.0.0")
class Part1(BaseModel):
    name: str

@manager.model("Part", "2.0.0", backward_compatible=True)
class Part2(BaseModel):
    name: str
    size: int = 1
    made: dt.date = dt.date(2020, 1, 1)
    tags: list[str] = Field(default_factory=lambda: ["t"])

@manager.model("Part", "3.0.0")
class Part3(BaseModel):
    name: Annotated[str, Field(max_length=9)]
    grams: Annotated[int, AfterValidator(positive)]
    children: list["Part3"] = []

    @field_validator("name")
    @classmethod
    def strip(cls, value):
        return value.strip()

    @computed_field
    @property
    def kilos(self) -> float:
        return self.grams / 1000

def weigh(factor, names=frozenset({"p", "q", "r"})):
    units = {"g": factor}
    def step(data):
        if data["name"] in {"u", "v", "w"} | names:
            return data
        return {"name": data["name"], "grams": data["size"] * units["g"]}
    return step

manager.migration("Part", "2.0.0", "3.0.0")(weigh(100))

@manager.model("Box", "1.0.0")
class Box1(BaseModel):
    parts: list[Part1]
    plain: Plain = Plain()

@manager.model("Box", "2.0.0", backward_compatible=True)
class Box2(BaseModel):
    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)
    parts: list[Part3]
    thing: Thing = Thing(7)
    kind: Literal["box"] = "box"

@manager.model("Box", "3.0.0")
class Box3(Box2):
    label: str

def label(prefix, data, suffix="!"):
    """Document."""
    return {**data, "label": prefix + suffix}

manager.migration("Box", "2.0.0", "3.0.0")(functools.partial(label, "L", suffix="?"))

@manager.model("Box", "4.0.0")
class Box4(Box3):
    pass

class Relabel:
    def __init__(self, pattern, to):
        self.pattern, self.to = re.compile(pattern), to
        self.log = object()  # no two processes have the same

    def __call__(self, data):
        return {**data, "label": self.change(data["label"])}

    def change(self, label):
        return self.pattern.sub(self.to, label)

manager.migration("Box", "3.0.0", "4.0.0")(Relabel("L", "M"))

if __name__ == "__main__":
    print(manager.plan("Box", "1.0.0", "4.0.0").fingerprint)
'''

SAME = {
    "a comment": ("def positive", "# why\ndef positive"),
    "other lines": ("class Color", "\n\nunrelated = 1\n\n\nclass Color"),
    "a model beside": (
        "def weigh",
        "@manager.model('Else', '1.0.0')\nclass E(BaseModel): pass\ndef weigh",
    ),
}
OTHER = {
    "a field of a nested model": (
        "    name: str\n    size",
        "    name: str\n    more: str = ''\n    size",
    ),
    "a type": ("grams: Annotated[int", "grams: Annotated[float"),
    "a constraint": ("max_length=9", "max_length=8"),
    "a default": ("size: int = 1", "size: int = 2"),
    "a default of a model that nobody registered": ('"y", "z"', '"y"'),
    "a default that is an object": ("Thing(7)", "Thing(8)"),
    "a default factory": ('["t"]', '["T"]'),
    "a date": ("dt.date(2020", "dt.date(2021"),
    "an enumeration": ("BLUE = 2", "BLUE = 3"),
    "a literal": ('Literal["box"]', 'Literal["box", "crate"]'),
    "an alias": ("label: str", "label: str = Field(alias='Label')"),
    "a setting": ('extra="ignore"', 'extra="forbid"'),
    "a validator": ("value.strip()", "value.rstrip()"),
    "a validator in an annotation": ("abs(value)", "-value"),
    "a computed field": ("/ 1000", "/ 1024"),
    "a step in a closure": ('data["size"] *', 'data["size"] +'),
    "what a closure holds": ("weigh(100)", "weigh(101)"),
    "a default argument": ('{"p", "q", "r"}', '{"p", "q"}'),
    "a set in a step": ('{"u", "v", "w"}', '{"u", "v"}'),
    "a partial's function": ("prefix + suffix", "suffix + prefix"),
    "a partial's argument": ('label, "L"', 'label, "K"'),
    "a partial's keyword": ('suffix="?"', 'suffix="."'),
    "an object's state": ('Relabel("L", "M")', 'Relabel("L", "N")'),
    "an object's pattern": ('Relabel("L"', 'Relabel("l"'),
    "an object's method": ("self.pattern.sub(self.to, label)", "self.pattern.sub(label, self.to)"),
    "an object's call": (
        "def __call__(self, data):\n",
        "def __call__(self, data):\n        data = dict(data)\n",
    ),
    "a version": ('"Part", "2.0.0"', '"Part", "2.0.1"'),
    "a generated step replaced by a written one": (
        "def weigh",
        "manager.migration('Part', '1.0.0', '2.0.0')(dict)\ndef weigh",
    ),
    "a nested step that is missing": (
        '@manager.model("Part", "2.0.0", backward_compatible=True)',
        '@manager.model("Part", "2.0.0")',
    ),
}

PROGRAM = """
import importlib.util, json, sys
found = {}
for name in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("variant", name)
    module = importlib.util.module_from_spec(spec)
    sys.modules["variant"] = module
    spec.loader.exec_module(module)
    found[name] = module.manager.plan("Box", "1.0.0", "4.0.0").fingerprint
print(json.dumps(found))
"""


def run(seed: int, *arguments: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The fingerprint of every variant of the module, by the variant's title."""
    directory = tmp_path_factory.mktemp("variants")
    files = {"base": _write(directory / "base.py", MODULE)}
    for title, (old, new) in {**SAME, **OTHER}.items():
        assert MODULE.count(old) >= 1, title
        changed = MODULE.replace(old, new)
        files[title] = _write(directory / f"{len(files)}.py", changed)
    found = json.loads(run(0, "-c", PROGRAM, *files.values()))
    assert json.loads(run(4711, "-c", PROGRAM, *files.values())) == found
    found["script"] = run(7, files["base"])
    files["script"] = "script"
    return {title: found[file] for title, file in files.items()}


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_script_has_the_fingerprint_of_the_module_that_workers_import(
    fingerprints: dict[str, str],
) -> None:
    assert fingerprints["script"] == fingerprints["base"]


@pytest.mark.parametrize("title", SAME)
def test_irrelevant_differences_keep_the_fingerprint(
    fingerprints: dict[str, str], title: str
) -> None:
    assert fingerprints[title] == fingerprints["base"]


def test_relevant_differences_change_the_fingerprint(fingerprints: dict[str, str]) -> None:
    changed = {title: fingerprints[title] for title in ["base", *OTHER]}
    assert len(set(changed.values())) == len(changed), changed


def test_a_worker_has_the_fingerprint_of_the_code_it_runs(
    tmp_path: Path,
) -> None:
    """A file replaced after it was imported does not count."""
    path = tmp_path / "deployed.py"
    path.write_text(MODULE)
    namespace: dict[str, Any] = {"__name__": "deployed"}
    exec(compile(MODULE, str(path), "exec"), namespace)  # noqa: S102  # our own text
    before = namespace["manager"].plan("Box", "1.0.0", "4.0.0").fingerprint
    namespace = {"__name__": "deployed"}
    exec(compile(MODULE, str(path), "exec"), namespace)  # noqa: S102
    path.write_text(MODULE.replace("abs(value)", "-value"))
    assert namespace["manager"].plan("Box", "1.0.0", "4.0.0").fingerprint == before


def two_versions(manager: ModelManager, **fields: Any) -> None:
    manager.model("User", "1.0.0")(create_model("User1", name=str))
    manager.model("User", "2.0.0", backward_compatible=True)(create_model("User2", **fields))


def test_types_without_a_json_schema_have_a_fingerprint() -> None:
    class Opaque:
        pass

    manager = ModelManager()
    manager.model("User", "1.0.0")(create_model("User1", name=str))
    config = ConfigDict(arbitrary_types_allowed=True)
    model: type[BaseModel] = create_model("User2", __config__=config, it=(Opaque, Opaque()))
    manager.model("User", "2.0.0", backward_compatible=True)(model)
    plan = manager.plan("User", "1.0.0", "2.0.0")
    assert len(plan.fingerprint) == 16
    assert plan.fingerprint != manager.plan("User", "2.0.0", "2.0.0").fingerprint


def test_equal_registrations_have_equal_fingerprints() -> None:
    managers = [ModelManager(), ModelManager()]
    for manager in managers:
        two_versions(manager, name=(str, ...), age=(int, 0))
    first, second = (manager.plan("User", "1.0.0", "2.0.0") for manager in managers)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint == first.fingerprint
