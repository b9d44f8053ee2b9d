"""Results, order and errors equal pyrmute's wherever pyrmute is right.

Hypothesis invents models, chains of versions, steps and records. Shapes that pyrmute gets
wrong are left out here; ``test_pyrmute_differences.py`` has them one by one.
"""

import pprint
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from pydantic import BaseModel, ConfigDict, Field, create_model

from tests.unit.both import Both

FEW, MANY = (
    settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for count in (40, 200)
)

SCALARS: list[Any] = [int, str, float | None, list[int], dict[str, Any], bool]
FIELD_NAMES = ["alpha", "beta", "gamma", "delta"]
VALUES = st.one_of(
    st.integers(0, 9),
    st.sampled_from(["", "x", "7", None, True, 1.5]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(["k", "alpha"]), st.integers(0, 3), max_size=2),
)
VERSIONS = ["1.0.0", "1.1.0", "2.0.0", "10.0.0"]


@dataclass
class Family:
    """All versions of one model.

    Attributes:
        name: The model's name.
        models: The classes, lowest version first.
        keys: For each version, the keys under which a record may hold each field.
        shapes: For each version, the nested fields and what is in them.
    """

    name: str
    models: list[type[BaseModel]] = field(default_factory=list)
    keys: list[dict[str, list[str]]] = field(default_factory=list)
    shapes: list[dict[str, tuple[str, list["Family"], int]]] = field(default_factory=list)


# --- models -------------------------------------------------------------------------------


@st.composite
def defaults(draw: st.DrawFn, kind: Any) -> dict[str, Any]:
    fallback: Any = {int: 5, str: "five", bool: True}.get(kind)
    if kind == list[int]:
        fallback = [5]
    if kind == dict[str, Any]:
        fallback = {"five": [5]}
    return draw(
        st.sampled_from(
            [
                {},
                {"default": fallback},
                {"default_factory": lambda: fallback},
                {"default_factory": lambda data: data.get("alpha", fallback)},
            ]
        )
    )


@st.composite
def aliases(draw: st.DrawFn, name: str) -> dict[str, str]:
    options = {"alias": f"{name}Alias", "validation_alias": f"{name}In"}
    options["serialization_alias"] = f"{name}Out"
    chosen = draw(st.sampled_from([[], [], ["alias"], ["serialization_alias"], list(options)]))
    return {option: options[option] for option in chosen}


@st.composite
def scalar_fields(draw: st.DrawFn) -> dict[str, tuple[Any, Any]]:
    names = draw(st.lists(st.sampled_from(FIELD_NAMES), unique=True, max_size=4))
    fields = {}
    for name in names:
        kind = draw(st.sampled_from(SCALARS))
        options: dict[str, Any] = {**draw(defaults(kind)), **draw(aliases(name))}
        fields[name] = (kind, Field(**options))
    return fields


SHAPES = {"field": ["field", "optional"], "list": ["list", "list of optional"]}


@st.composite
def nested_fields(
    draw: st.DrawFn, inside: dict[str, tuple[str, list[Family]]]
) -> dict[str, tuple[Any, Any, tuple[str, list[Family], int]]]:
    fields = {}
    for name, (shape, members) in inside.items():
        chosen = shape
        at = draw(st.integers(0, min(len(member.models) for member in members) - 1))
        models = [member.models[at] for member in members]
        options: dict[str, Any] = {}
        if len(models) > 1:
            kind: Any = models[0] | models[1]
            kind = list[Annotated[kind, Field(discriminator="kind")]] if shape == "list" else kind
            options = {} if shape == "list" else {"discriminator": "kind"}
        else:
            chosen = draw(st.sampled_from(SHAPES[shape]))
            options = {"default": None} if chosen == "optional" else {}
            kind = models[0] | None if "optional" in chosen else models[0]
            kind = list[kind] if "list" in chosen else kind
        fields[name] = (kind, Field(**options), (chosen, members, at))
    return fields


@st.composite
def families(
    draw: st.DrawFn,
    both: Both,
    name: str,
    tag: str | None = None,
    nested: dict[str, tuple[str, list[Family]]] | None = None,
    complete: bool = False,
) -> Family:
    family = Family(name)
    count = draw(st.integers(2, 4))
    for version in range(count):
        inner = draw(nested_fields(nested or {}))
        parts = {key: (kind, info) for key, (kind, info, _) in inner.items()}
        parts.update(draw(scalar_fields()))
        if tag is not None:
            parts["kind"] = (Literal[tag], Field(tag))
        ordered = {key: parts[key] for key in draw(st.permutations(sorted(parts)))}
        config = ConfigDict(extra=draw(st.sampled_from(["ignore", "allow"])), validate_by_name=True)
        if not draw(st.booleans()):
            config["validate_by_name"] = False
        model = create_model(f"{name}{version}", __config__=config, **ordered)  # type: ignore[call-overload]  # fields are made up
        both.model(name, VERSIONS[version], backward_compatible=draw(st.integers(0, 3)) > 0)(model)
        family.models.append(model)
        family.shapes.append({key: shape for key, (_, _, shape) in inner.items()})
        family.keys.append({key: _keys(key, info) for key, (_, info) in ordered.items()})
    for first, last in draw(hops(count)):
        both.migration(name, VERSIONS[first], VERSIONS[last])(draw(steps(f"{first}{last}")))
    if complete:
        _complete(both, name, count)
    return family


def _keys(name: str, info: Any) -> list[str]:
    others = [getattr(info, kind, None) for kind in ("alias", "validation_alias")]
    return [
        name,
        *(key for key in others if key),
        *([info.serialization_alias] if getattr(info, "serialization_alias", None) else []),
    ]


@st.composite
def hops(draw: st.DrawFn, count: int) -> list[tuple[int, int]]:
    pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
    return draw(st.lists(st.sampled_from(pairs), unique=True, max_size=count))


@st.composite
def steps(draw: st.DrawFn, mark: str) -> Any:
    name = draw(st.sampled_from(FIELD_NAMES))
    return draw(
        st.sampled_from(
            [
                lambda data: {**data, f"mark{mark}": 1},
                lambda data: {f"mark{mark}": 1, **data},
                lambda data: {**data, name: len(data[name])},
                lambda data: {key: value for key, value in data.items() if key != name},
            ]
        )
    )


def _complete(both: Both, name: str, count: int) -> None:
    """Write the missing steps between neighbours."""
    for first, last in [(at, at + 1) for at in range(count - 1)]:
        for hop in ((first, last), (last, first)):
            versions = [VERSIONS[at] for at in hop]
            if not both.theirs.has_migration_path(name, *versions):
                both.migration(name, *versions)(dict)


# --- records ------------------------------------------------------------------------------


@st.composite
def records(draw: st.DrawFn, family: Family, version: int, tag: str | None = None) -> Any:
    record: dict[str, Any] = {}
    for name, keys in family.keys[version].items():
        if draw(st.integers(0, 7)) == 0:
            continue
        key = draw(st.sampled_from(keys))
        shape = family.shapes[version].get(name)
        if name == "kind" and tag is not None:
            record[key] = tag
        elif shape is None or draw(st.integers(0, 15)) == 0:
            # No dict where a list belongs: pyrmute takes it for an item, or not.
            junk = draw(VALUES)
            record[key] = 1 if shape and isinstance(junk, dict) else junk
        else:
            record[key] = draw(nested_values(*shape))
    if draw(st.integers(0, 3)) == 0:
        record["extra"] = draw(VALUES)
    if draw(st.integers(0, 3)) == 0:
        record[draw(st.sampled_from(FIELD_NAMES))] = draw(VALUES)
    keys = draw(st.permutations(list(record)))
    return {key: record[key] for key in keys}


@st.composite
def nested_values(draw: st.DrawFn, shape: str, members: list[Family], version: int) -> Any:
    def one() -> Any:
        family = draw(st.sampled_from(members))
        return draw(records(family, version, family.name.lower()))

    if shape in ("optional", "list of optional") and draw(st.integers(0, 3)) == 0:
        return None
    if shape.startswith("list"):
        return [one() for _ in range(draw(st.integers(0, 3)))]
    return one()


# --- the tests ----------------------------------------------------------------------------


@dataclass
class Case:
    both: Both
    first: str
    last: str
    records: list[Any]
    target: type[BaseModel]

    def __repr__(self) -> str:
        models = self.both.theirs._registry._models
        fields = {
            f"{name} {version}": {key: repr(info) for key, info in model.model_fields.items()}
            for name, versions in models.items()
            for version, model in versions.items()
        }
        return f"{self.first} → {self.last}: {self.records}\n{pprint.pformat(fields, width=200)}"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    both = Both()
    shape = st.sampled_from(["field", "list"])
    inside: dict[str, tuple[str, list[Family]]] = {}
    match draw(st.sampled_from(["item", "deep", "pets", "both", "nothing"])):
        case "item" | "both" as chosen:
            inside["one"] = (draw(shape), [draw(families(both, "Item"))])
            if chosen == "both":
                inside["two"] = (draw(shape), inside["one"][1])
        case "deep":
            nested = {"item": (draw(shape), [draw(families(both, "Item"))])}
            inside["two"] = (draw(shape), [draw(families(both, "Deep", nested=nested))])
        case "pets":
            pets = [draw(families(both, name, tag=name.lower())) for name in ("Cat", "Dog")]
            inside["pet"] = (draw(shape), pets)
    top = draw(families(both, "Top", nested=inside, complete=True))
    first, last = draw(st.permutations(range(len(top.models))))[:2]
    found = draw(st.lists(records(top, first), min_size=1, max_size=4))
    return Case(both, VERSIONS[first], VERSIONS[last], found, top.models[last])


@FEW
@given(cases())
def test_both_libraries_agree(case: Case) -> None:
    check(case)


@pytest.mark.slow
@MANY
@given(cases())
def test_both_libraries_agree_in_more_cases(case: Case) -> None:
    check(case)


def check(case: Case) -> None:
    hop = ("Top", case.first, case.last)
    for record in case.records:
        for method in ("migrate_data", "migrate"):
            theirs, ours = case.both.call(method, record, *hop)
            assert ours == theirs, record
            event(f"{method}: {theirs[0]}")
        theirs, ours = case.both.call("migrate_as", record, *hop, case.target)
        assert ours == theirs, record
    for name, first, last in product(("Top", "Item", "Nobody"), VERSIONS, VERSIONS):
        theirs, ours = case.both.call("has_migration_path", name, first, last)
        assert ours == theirs, (name, first, last)
    for method in ("migrate_batch_data", "migrate_batch", "migrate_batch_streaming"):
        theirs, ours = case.both.call(method, case.records, *hop)
        assert ours == theirs
        event(f"{method}: {theirs[0]}")
