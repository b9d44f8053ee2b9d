"""Values across a process boundary: which are carried, as what, and crafted messages."""

import contextlib
import enum
import gc
import sys
import types
import zlib
from collections import deque
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pyrmute_tasks.engine.chunks import pack_each
from pyrmute_tasks.errors import FrameError, UnsupportedValueError
from pyrmute_tasks.local.executors import pack_or_pickle, unpack_or_unpickle
from pyrmute_tasks.wire.frames import join_packed, pack, pack_record, unpack
from pyrmute_tasks.wire.loaded_classes import find_class, name_of_class
from pyrmute_tasks.wire.objects import Kind
from tests.conftest import ROOT, version_info
from tests.record_kinds import KINDS
from tests.wire_values import KEPT, REFUSED, Colour, Frozen, Guessing, Model, Plain, Point

TABLE = ROOT / "docs" / "types.md"


def assert_same(left: Any, right: Any, pairs: dict[int, tuple[Any, Any]] | None = None) -> None:
    """Fail unless both are the same in types, values, order and identities."""
    pairs = {} if pairs is None else pairs
    assert type(left) is type(right)
    if isinstance(left, (dict, list, set, bytearray, deque, BaseModel, Plain)):
        # The pair keeps both alive, so that an id stays theirs.
        assert pairs.setdefault(id(left), (left, right))[1] is right
    ours, theirs = _parts(left), _parts(right)
    if ours is None:
        assert left == right or left != left  # noqa: PLR0124  # NaN
        assert (repr(left), str(left)) == (repr(right), str(right))
    else:
        for one, other in zip(ours, theirs or (), strict=True):
            assert_same(one, other, pairs)


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, dict):
        flat = [part for item in value.items() for part in item]
        return [getattr(value, "default_factory", None), *flat]
    if isinstance(value, (list, tuple, deque)):
        return [getattr(value, "maxlen", None), *value]
    if isinstance(value, BaseModel):
        names = ("__dict__", "model_fields_set", "__pydantic_extra__", "__pydantic_private__")
        return [getattr(value, name) for name in names]
    if isinstance(value, (Plain, Frozen)):
        return [getattr(value, name) for name in value.__dataclass_fields__]
    return None


@pytest.mark.parametrize("name", KEPT)
def test_value_round_trips(name: str) -> None:
    value = {"at": [KEPT[name]()]}
    assert_same(unpack(pack_record(value)), value)
    assert_same(unpack(join_packed(list(pack_each([value, {}])))), [value, {}])


@pytest.mark.parametrize("name", REFUSED)
def test_value_is_refused_with_its_record_and_place(name: str) -> None:
    records = [{"a": 1}, {"a": {"b": [5, REFUSED[name]()]}}]
    with pytest.raises(UnsupportedValueError) as caught:
        list(pack_each(records))
    assert caught.value.record_index == 1
    assert caught.value.path.startswith("a.b[1]")


def test_path_leads_through_instances() -> None:
    odd: Any = object()
    for value, path in (
        (Frozen("a", [object()]), "v.inner[0]"),
        (Model.model_construct(name=odd), "v.name"),
        (Point(odd), "v.x"),
        ({1: object()}, "v.<key>"),
        (deque([object()]), "v[0]"),
    ):
        with pytest.raises(UnsupportedValueError) as caught:
            pack_record({"v": value})
        assert caught.value.path == path


# --- identity -----------------------------------------------------------------------------

LEAVES = st.sampled_from(sorted(KEPT)).map(lambda name: KEPT[name]()) | st.text() | st.integers()
KEYS = st.sampled_from([1, "a", "red", Colour.RED, (1, 2), None, Point(1.0), Frozen("a"), date.max])


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """Return records with parts held more than once."""
    nodes: list[Any] = [draw(LEAVES) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(0, 6))):
        inner = draw(st.lists(st.sampled_from(range(len(nodes))), max_size=4))
        items = [nodes[position] for position in inner]
        make = draw(st.sampled_from(["list", "tuple", "text", "dict", "deque", "plain", "model"]))
        nodes.append(_container(make, items, draw))
    chosen = draw(st.lists(st.sampled_from(range(len(nodes))), max_size=6))
    return {"nodes": [nodes[position] for position in chosen], "last": nodes[-1]}


def _container(make: str, items: list[Any], draw: st.DrawFn) -> Any:
    if make == "text":
        return {str(position): item for position, item in enumerate(items)}
    if make == "dict":
        return {draw(KEYS): item for item in items}
    if make == "plain":
        return Plain("a", items)
    if make == "model":
        unchecked: Any = items
        return Model.model_construct(name=unchecked, more=items)
    return {"list": list, "tuple": tuple, "deque": deque}[make](items)


@given(graphs())
@settings(deadline=None, max_examples=300)
def test_values_arrive_with_their_identities(record: Any) -> None:
    if len(record["nodes"]) % 2:
        gc.collect(0)  # after which tuples of plain values are not tracked
    assert_same(unpack(pack_record(record)), record)
    back = unpack(join_packed(list(pack_each([record, record]))))
    assert_same(back[0], record)
    assert_same(back[1], record)
    assert back[0] is not back[1]


def test_sharing_is_found_at_any_depth() -> None:
    inners: list[Any] = [{}, {"a": 1}, [], bytearray(b"a"), {1}, Model(name="a")]
    for inner in inners:
        for record in (
            {"a": inner, "b": inner},
            {"a": inner, "b": {"c": [{"d": inner}]}},
            {"a": (inner,), "b": [inner]},
        ):
            assert_same(unpack(pack_record(record)), record)


def test_records_without_sharing_have_no_overhead() -> None:
    record = {"a": {"b": [1]}, "c": {"b": [1]}}
    assert pack_record(record) == ormsgpack.packb(record)


def test_labels_belong_to_their_record() -> None:
    records: list[Any] = []
    for number in range(3):
        inner = [number]
        records.append({"a": inner, "b": inner})
    back = unpack(join_packed(list(map(pack_record, records))))
    assert back == records
    assert all(record["a"] is record["b"] for record in back)


def test_deep_values_are_carried_or_refused_at_once() -> None:
    for wrap in (lambda value: (value,), lambda value: {1: value}, lambda value: Plain("a", value)):
        value: Any = []
        for depth in range(300):
            value = wrap(value)
            if depth % 3:  # a depth takes two milliseconds and more
                continue
            try:
                packed = pack_record({"a": value, "b": value})
            except UnsupportedValueError:
                continue
            unpack(packed)


# --- on this machine ----------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["subclass of `list`, `dict`", "a container within itself"])
def test_only_the_odd_record_is_pickled(odd: str) -> None:
    records = [{"n": 0}, {"n": REFUSED[odd]()}, {"n": Colour.RED}]
    packed = list(map(pack_or_pickle, records))
    assert [data[:1] == b"\xc1" for data in packed] == [False, True, False]
    back = unpack_or_unpickle(packed)
    assert back[0] == records[0]
    assert type(back[1]["n"]) is type(records[1]["n"])
    assert back[2] == records[2]


class NoWayBack(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


def test_unpicklable_value_is_refused_when_packed() -> None:
    with pytest.raises(UnsupportedValueError, match="NoWayBack at n "):
        pack_or_pickle({"n": NoWayBack(1, 2)})


# --- classes by name ----------------------------------------------------------------------


def test_classes_of_the_script_are_named_by_its_stem(monkeypatch: pytest.MonkeyPatch) -> None:
    script = types.ModuleType("__main__")
    script.__file__ = "/somewhere/nightly_job.py"
    kind = type("Kind", (), {"__module__": "__main__"})
    script.Kind = kind  # type: ignore[attr-defined]  # a module's own
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert name_of_class(kind) == "nightly_job:Kind"
    assert find_class("nightly_job:Kind") is kind
    # Imported as well: then it has two classes of that name, and the script's is not sent.
    again = types.ModuleType("nightly_job")
    again.Kind = type("Kind", (), {"__module__": "nightly_job"})  # type: ignore[attr-defined]  # as above
    monkeypatch.setitem(sys.modules, "nightly_job", again)
    assert name_of_class(kind) is None
    assert find_class("nightly_job:Kind") is again.Kind


def test_local_classes_are_refused() -> None:
    class Local(enum.Enum):
        A = 1

    with pytest.raises(UnsupportedValueError):
        pack_record({"a": Local.A})


def instance(kind: Kind, *parts: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(kind, pack(list(parts))))


HERE = "tests.wire_values"


@pytest.mark.parametrize(
    "message",
    [
        instance(Kind.ENUM, "no_such_module:Enum", "A", 1),
        instance(Kind.ENUM, "subprocess:Popen", "A", 1),
        instance(Kind.ENUM, "builtins:eval", "A", 1),
        instance(Kind.ENUM, f"{HERE}:Plain", "A", 1),
        instance(Kind.ENUM, f"{HERE}:Guessing", "TWO", 2),
        instance(Kind.ENUM, f"{HERE}:Guessing", None, 2),
        instance(Kind.ENUM, f"{HERE}:Colour", "RED", "blue"),
        instance(Kind.ENUM, f"{HERE}:Colour", ["RED"], "red"),
        instance(Kind.ENUM, f"{HERE}:Right", None, 1 << 70),
        instance(Kind.ENUM, 5, "A", 1),
        instance(Kind.ENUM),
        instance(Kind.DATACLASS, f"{HERE}:Plain", 0, None, "a", []),
        instance(Kind.DATACLASS, f"{HERE}:Plain", zlib.crc32(b"name,tags"), ["__class__"], "a"),
        instance(Kind.DATACLASS, f"{HERE}:Model", 0, None, "a"),
        instance(Kind.DATACLASS, "builtins:dict", 0, None),
        instance(Kind.NAMED_TUPLE, f"{HERE}:Point", 0, 1.0, 2.0),
        instance(Kind.NAMED_TUPLE, "builtins:tuple", 0),
        instance(Kind.NAMED_TUPLE, "os:stat_result", 0),
        instance(Kind.MODEL, f"{HERE}:Model", 0, ["name"], {"name"}, None, None, "a"),
        instance(Kind.MODEL, "pydantic:BaseModel", 0, [], set(), None, {"a": 1}),
        ormsgpack.packb(ormsgpack.Ext(14, b"\x05")),  # a reference to nothing
        ormsgpack.packb(ormsgpack.Ext(14, b"")),
        ormsgpack.packb(ormsgpack.Ext(13, b"\x90")),
        ormsgpack.packb(ormsgpack.Ext(13, pack([[], 1]))),
        ormsgpack.packb(ormsgpack.Ext(20, b"Popen\0ls")),
        ormsgpack.packb(ormsgpack.Ext(20, b"IPv4Address\x00x")),
        ormsgpack.packb(ormsgpack.Ext(21, b"s" + bytes(8) + b"(")),
        ormsgpack.packb(ormsgpack.Ext(21, b"s" + (128).to_bytes(8, "big") + b"a")),
        ormsgpack.packb(ormsgpack.Ext(26, pack(["Popen"]))),
        ormsgpack.packb(ormsgpack.Ext(19, b"1 0")),
        ormsgpack.packb(ormsgpack.Ext(99, b"")),
    ],
)
def test_crafted_message_is_refused(message: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(message)


def test_class_with_another_definition_is_named() -> None:
    with pytest.raises(FrameError, match=r"tests\.wire_values:Plain is defined differently"):
        unpack(instance(Kind.DATACLASS, f"{HERE}:Plain", 0, None, "a", []))
    with pytest.raises(FrameError, match="'gone:Plain' is not loaded in this process"):
        unpack(instance(Kind.DATACLASS, "gone:Plain", 0, None, "a", []))


def test_names_never_import_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("code of the module ran")

    monkeypatch.setitem(sys.modules, "late", Late("late"))
    before = set(sys.modules)
    for name in ("late:Kind", "this:s", "antigravity:x", "late:a.b", "", ":", "a:b:c"):
        assert find_class(name) is None
    assert set(sys.modules) == before


@given(st.sampled_from(range(40)), st.binary(max_size=60))
@settings(deadline=None, max_examples=250)
def test_any_bytes_behind_an_extension_type_are_read_or_refused(tag: int, data: bytes) -> None:
    with contextlib.suppress(FrameError):
        unpack(ormsgpack.packb(ormsgpack.Ext(tag, data)))


def test_guessing_enum_is_looked_up_by_name_only() -> None:
    assert unpack(pack([Guessing.ONE]))[0] is Guessing.ONE


# --- the table ----------------------------------------------------------------------------

HEAD = """\
# Supported values

The values that records may hold. This page is generated; after a change:
`python -m tests.unit.test_values`.

- **in process, in threads**: every value stays the object it is.
- **in processes**: *kept* is an equal value of the same type, in the same order where it has one;
  an object that a record holds twice is one object again. *Pickled* is the result of `pickle`.
- **fleet**: *kept* as above. *Refused* is an `UnsupportedValueError` with record index and
  path of the value, as soon as the record is packed. A class of your own must be an attribute
  of a module, and workers must load it with the manager.
- **files**: the output of `migrate_file` for a field declared as `Any`; other types have their own.

## Records

A record may be more than a `dict`. What a step gets for it is the same in process, in threads, in
processes and on a fleet; values inside of it stay what the function on the right leaves.

| record | a step gets |
|---|---|
{records}
## Errors

An error from another process keeps its class, text, causes, context and attributes, also in slots;
a class that is not an attribute of a loaded module becomes a `RemoteError` with its name and text.
An unsupported value is replaced by its type, as in `<builtins.memoryview>`, if it is an input in a
`ValidationError`; by the error's text if it is an argument (as in `decimal.InvalidOperation`, whose
argument is a list of classes); and left out if it is an attribute, such as `AttributeError.obj`.
Notes other than strings are left out, and so are errors after the hundredth of a chain.

## Values

| value | in process, threads | processes | fleet | files |
|---|---|---|---|---|
"""


class _Anything(BaseModel):
    value: Any


def _row(name: str, value: Any) -> str:
    record = {"value": value}
    try:
        assert_same(unpack(pack_record(record)), record)
        fleet = processes = "kept"
    except UnsupportedValueError:
        fleet = "refused"
        try:
            unpack_or_unpickle([pack_or_pickle(record)])
            processes = "pickled"
        except UnsupportedValueError:
            processes = "refused"
    try:
        text = _Anything(value=value).model_dump_json()[len('{"value":') : -1]
        files = f"`{text}`".encode("ascii", "backslashreplace").decode().replace("|", "\\|")
    except Exception:
        files = "refused"
    return f"| {name} | the same | {processes} | {fleet} | {files} |\n"


def table() -> str:
    records = "".join(f"| {name} | {becomes} |\n" for name, (_, becomes) in KINDS.items())
    return HEAD.format(records=records) + "".join(
        _row(name, make()) for name, make in (KEPT | REFUSED).items()
    )


@pytest.mark.skipif(
    version_info("pydantic") < (2, 14), reason="older versions write a deque of anything as JSON"
)
def test_table_of_types_is_up_to_date() -> None:
    assert TABLE.read_text() == table(), "write it again: python -m tests.unit.test_values"


if __name__ == "__main__":
    Path(TABLE).write_text(table())


@contextlib.contextmanager
def interrupted_in(function: str) -> Iterator[None]:
    """Raise the exception of a signal handler at the first call of `function`."""

    def interrupt(frame: types.FrameType, _: str, __: object) -> None:
        if frame.f_code.co_name == function:
            sys.setprofile(before)
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(before)


IN_FIELDS = {"at": [date(2024, 1, day) for day in range(1, 29)]}


@pytest.mark.parametrize("value", [IN_FIELDS, {1: IN_FIELDS}, {"shared": [IN_FIELDS, IN_FIELDS]}])
def test_interruption_is_not_swallowed_by_packing(value: object) -> None:
    with interrupted_in("scalar_to_bytes"), pytest.raises(KeyboardInterrupt):
        pack_record(value)
    assert_same(unpack(pack_record(value)), value)


@pytest.mark.parametrize("value", [IN_FIELDS, {1: IN_FIELDS}, {"shared": [IN_FIELDS, IN_FIELDS]}])
def test_interruption_is_not_swallowed_by_unpacking(value: object) -> None:
    packed = pack(value)
    with interrupted_in("scalar_from_bytes"), pytest.raises(KeyboardInterrupt):
        unpack(packed)
    assert_same(unpack(packed), value)
