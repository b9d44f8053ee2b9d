"""Random chains of versions, with steps and validators of all habits.

A `Spec` is plain data, so that hypothesis can show and shrink it, and so that another
process makes the same chain from the same seed. A `Chain` is what it describes: models,
steps, and the state that those keep. Whatever is called appends to `Chain.calls`.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    RootModel,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from tests.differential.oddities import ERRORS, EXITS, RETURNS, VALIDATION_ERRORS, VALUES

__all__ = ["Chain", "Deed", "Spec", "Version", "is_local", "records_of", "spec_of"]

Record = dict[str, Any]


@dataclass(frozen=True)
class Deed:
    """A habit of a step or a validator.

    Attributes:
        name: Which.
        at: The record that it happens at, for what happens once.
        what: Which error, value or result.
    """

    name: str
    at: int = 0
    what: str = ""


@dataclass(frozen=True)
class Version:
    """One version of the model.

    Attributes:
        config: Options of its configuration.
        validators: What it runs when validating, and where.
        serializers: What it runs when it is written.
        nested: Whether its inner dict and its items are a registered model.
    """

    config: tuple[tuple[str, Any], ...] = ()
    validators: tuple[tuple[str, Deed], ...] = ()
    serializers: tuple[Deed, ...] = ()
    nested: bool = False


@dataclass(frozen=True)
class Spec:
    """The random choices of a case.

    Attributes:
        versions: The versions, lowest first.
        steps: For each hop the habits of the step, or None for an automatic one.
        nested: The same for the model inside of records.
        rooted: Whether the last version is a root model.
        records: How many.
        oddities: What is special about which record.
        source: How they are given.
        at: Which record the source fails at, if it does.
        chunk_size: For streams.
    """

    versions: tuple[Version, ...]
    steps: tuple[tuple[Deed, ...] | None, ...]
    nested: tuple[tuple[Deed, ...] | None, ...]
    rooted: bool
    records: int
    oddities: tuple[tuple[int, str], ...]
    source: str
    at: int
    chunk_size: int


# --- choosing -----------------------------------------------------------------------------

STATEFUL: Final = ("closure", "default", "global", "class", "read", "keep", "memo", "grow")
MODIFYING: Final = ("mutate", "mutate inner", "delete", "share")
LOCAL: Final = ("add", "reuse", "cache", "put", "raise", "exit", "return")
INNER: Final = frozenset({"mutate inner", "memo", "keep", "share"})
SOURCES: Final = ("list", "list", "generator", "reusing", "same", "fails", "interrupted", "odd")
MODES: Final = ("before", "after", "wrap", "plain", "model before", "model after", "model wrap")
CONFIGS: Final = (
    ("extra", "allow"),
    ("extra", "allow"),
    ("extra", "forbid"),
    ("strict", True),
    ("frozen", True),
    ("from_attributes", True),
    ("hide_input_in_errors", True),
    ("title", "A title"),
    ("validation_error_cause", True),
    ("revalidate_instances", "always"),
)


def spec_of(random: Random, *, local: bool = False, lines: bool = False) -> Spec:
    """Choose the spec of a case.

    Args:
        random: Where choices come from; hypothesis has one that it can shrink.
        local: Whether what a record becomes depends on the record alone.
        lines: Whether records are lines of JSON, and models are written as such.
    """
    hops = random.choice((0, 1, 1, 2, 2, 3))
    count = random.randint(1, 6)
    kinds = SOURCES[:3] if local else SOURCES
    nested = tuple(_step(random, local, count, 2, flat=True) for _ in range(hops))
    steps: list[tuple[Deed, ...] | None] = []
    # Plain values that an automatic step has passed on are pyrmute's own copies, and are not
    # with ours: nothing may tell that by modifying them. See the documented differences.
    is_automatic = random.randint(0, 1) == 1
    for _ in range(hops):
        steps.append(_step(random, local, count, 3, flat=is_automatic))
    is_nested = random.randint(0, 3) == 0
    versions = tuple(_version(random, local, count, lines, is_nested) for _ in range(hops + 1))
    rooted = hops > 0 and steps[-1] is not None and random.randint(0, 9) == 0
    source = "list" if lines else random.choice(kinds)
    if source == "odd" and not hops:
        source = "list"
    return Spec(
        versions,
        tuple(steps),
        nested,
        rooted,
        count,
        tuple(
            (random.randrange(count), random.choice(("bad name", "no inner", "text id", "extra")))
            for _ in range(random.choice((0, 0, 1, 2)))
        ),
        source,
        random.randint(0, count),
        random.choice((1, 2, 3, 100)),
    )


def _step(
    random: Random, local: bool, count: int, most: int, *, flat: bool
) -> tuple[Deed, ...] | None:
    if flat and random.randint(0, 2) == 0:
        return None
    names = [*LOCAL, *MODIFYING, *(() if local else STATEFUL)]
    names = [name for name in names if not flat or name not in INNER]
    return tuple(_deed(random, names, count) for _ in range(random.randint(1, most)))


def _deed(random: Random, names: list[str], count: int) -> Deed:
    name, at = random.choice(names), random.randrange(count)
    tables: dict[str, Iterable[str]] = {
        "raise": ERRORS,
        "exit": EXITS,
        "return": RETURNS,
        "put": VALUES,
    }
    options = tables.get(name)
    return Deed(name, at, random.choice(sorted(options)) if options else "")


def _version(random: Random, local: bool, count: int, lines: bool, is_nested: bool) -> Version:
    habits = ["raise", "raise", "exit", "change"] + ([] if local else ["count"])
    errors = sorted({**ERRORS, **VALIDATION_ERRORS})
    validators = []
    for _ in range(random.choice((0, 0, 1, 2))):
        name, at = random.choice(habits), random.randrange(count)
        what = random.choice(errors if name == "raise" else sorted(EXITS))
        mode = random.choice((*MODES, "subclass", "post init"))
        validators.append((mode, Deed(name, at, what)))
    written = []
    if lines:
        for _ in range(random.choice((0, 1, 2))):
            kind = random.choice(("computed", "field", "model", "method"))
            habit = random.choice(("plain", "raise"))
            what = random.choice(sorted(ERRORS))
            written.append(Deed(f"{kind} {habit}", random.randrange(count), what))
    return Version(
        tuple(random.choice(CONFIGS) for _ in range(random.choice((0, 1, 2)))),
        tuple(validators),
        tuple(written),
        is_nested,
    )


def is_local(spec: Spec) -> bool:
    """Return whether each result depends on its record alone."""
    deeds = [deed.name for step in (*spec.steps, *spec.nested) if step for deed in step]
    habits = [deed.name for version in spec.versions for _, deed in version.validators]
    return not set(deeds) & set(STATEFUL) and "count" not in habits and spec.source != "same"


# --- making -------------------------------------------------------------------------------

COUNTS: Final[dict[str, int]] = {}


class Chain:
    """The models and steps of a spec.

    Args:
        spec: What to make.
        name: The model's name, under which it is registered.

    Attributes:
        calls: What was called, in order.
        models: The versions' classes.
    """

    def __init__(self, spec: Spec, name: str) -> None:
        self.spec, self.name = spec, name
        self.calls: list[tuple[Any, ...]] = []
        self._resets: list[Callable[[], object]] = [self.calls.clear]
        self.parts = [self._part(at) for at in range(len(spec.versions))]
        self.models = [self._model(at, version) for at, version in enumerate(spec.versions)]
        if spec.rooted:
            self.models[-1] = self._rooted(len(spec.versions) - 1)
        self.steps = [
            deeds and self._step("step", at, deeds) for at, deeds in enumerate(spec.steps)
        ]
        self.nested = [
            deeds and self._step("in", at, deeds) for at, deeds in enumerate(spec.nested)
        ]

    @property
    def hop(self) -> tuple[str, str, str]:
        return self.name, "1.0.0", f"{len(self.models)}.0.0"

    def reset(self) -> None:
        """Forget all state."""
        for forget in self._resets:
            forget()

    def register(self, manager: Any, see: Callable[[str, Any], Any] = lambda _, step: step) -> None:
        """Register models and steps.

        Args:
            manager: pyrmute's or ours.
            see: Gets a hop and its step, and returns what to register.
        """
        for at, (part, model) in enumerate(zip(self.parts, self.models, strict=True)):
            compatible = {"backward_compatible": True}
            manager.model(f"{self.name}Part", f"{at + 1}.0.0", **compatible)(part)
            manager.model(self.name, f"{at + 1}.0.0", **compatible)(model)
        for at, (step, nested) in enumerate(zip(self.steps, self.nested, strict=True)):
            hop = (f"{at + 1}.0.0", f"{at + 2}.0.0")
            if step:
                manager.migration(self.name, *hop)(see(" → ".join(hop), step))
            if nested:
                manager.migration(f"{self.name}Part", *hop)(nested)

    # --- models ---------------------------------------------------------------------------

    def _class(
        self, name: str, annotations: Record, namespace: Record, base: Any = BaseModel
    ) -> Any:
        made = {"__module__": __name__, "__qualname__": name, "__annotations__": annotations}
        return type(base)(name, (base,), {**made, **namespace})

    def _part(self, at: int) -> Any:
        config = ConfigDict(extra="allow" if at % 2 else "ignore")
        return self._class(
            f"{self.name}Part{at}",
            {"n": int, f"at{at}": int},
            {"model_config": config, f"at{at}": at},
        )

    def _rooted(self, at: int) -> Any:
        return self._class(f"{self.name}Root{at}", {}, {}, RootModel[dict[str, Any]])

    def _model(self, at: int, version: Version) -> Any:
        part = self.parts[at] if version.nested else dict[str, Any]
        annotations = {
            "id": int,
            "name": str,
            "inner": part,
            "items": list[part],  # type: ignore[valid-type]  # made up
            "opt": int | None,
            "count": Any,
        }
        namespace: Record = {"name": "none", "opt": None, "count": None}
        namespace["model_config"] = ConfigDict(**dict(version.config))  # type: ignore[typeddict-item]  # made up
        for place, (mode, deed) in enumerate(version.validators):
            self._add_validator(namespace, f"check_{place}", mode, deed)
        for place, deed in enumerate(version.serializers):
            self._add_serializer(namespace, f"write_{place}", deed)
        model = self._class(f"{self.name}Model{at}", annotations, namespace)
        sub = self._class(f"{self.name}Sub{at}", {"more": int}, {"more": 1}, model)
        self._subclass(model, sub)
        return model

    def _subclass(self, model: Any, sub: Any) -> None:
        model.__subclass__ = sub

    def _act(self, deed: Deed, at: object, where: str) -> None:
        self.calls.append((where, at))
        if at == deed.at and deed.name in ("raise", "exit"):
            {**ERRORS, **EXITS, **VALIDATION_ERRORS}[deed.what]()

    def _add_validator(self, namespace: Record, name: str, mode: str, deed: Deed) -> None:
        if mode == "post init":
            namespace["model_post_init"] = self._post_init(deed)
        elif mode in ("before", "after", "plain", "wrap"):
            namespace[name] = self._field_validator(name, mode, deed)
        else:
            namespace[name] = self._model_validator(name, mode, deed)

    def _field_validator(self, name: str, mode: str, deed: Deed) -> Any:
        act, calls = self._act, self.calls

        def changed(value: Any) -> Any:
            if not isinstance(value, int) or deed.name not in ("count", "change"):
                return value
            return value + (len(calls) if deed.name == "count" else 10)

        def check(value: Any) -> Any:
            act(deed, value, name)
            return changed(value)

        def check_around(value: Any, handler: Any) -> Any:
            act(deed, value, name)
            return changed(handler(value))

        function = check_around if mode == "wrap" else check
        decorate: Any = field_validator("id", mode=mode)  # type: ignore[call-overload]  # made up
        return decorate(staticmethod(function))

    def _model_validator(self, name: str, mode: str, deed: Deed) -> Any:
        act, calls = self._act, self.calls

        def changed(data: Any) -> Any:
            if isinstance(data, dict) and deed.name in ("change", "count"):
                count = len(calls) if deed.name == "count" else ""
                data["name"] = f"{data.pop('name', '')}!{count}"
            return data

        def check_before(cls: Any, data: Any) -> Any:
            act(deed, _id_of(data), name)
            return changed(data)

        def check_after(self: Any) -> Any:
            act(deed, self.id, name)
            if deed.name == "change":
                self.__dict__["name"] += "?"
            return self

        def check_around(cls: Any, data: Any, handler: Any) -> Any:
            act(deed, _id_of(data), name)
            done = handler(changed(data))
            sub = cls.__dict__.get("__subclass__")
            if mode == "subclass" and sub is not None:
                return sub.model_construct(more=_id_of(data), **vars(done))
            return done

        if mode == "model before":
            before: Any = classmethod(check_before)
            return model_validator(mode="before")(before)
        if mode == "model after":
            return model_validator(mode="after")(check_after)
        around: Any = classmethod(check_around)
        return model_validator(mode="wrap")(around)

    def _post_init(self, deed: Deed) -> Any:
        act, calls = self._act, self.calls

        def model_post_init(self: Any, context: Any) -> None:
            act(deed, self.id, "post init")
            if deed.name == "count":
                self.__dict__["count"] = len(calls)

        return model_post_init

    def _add_serializer(self, namespace: Record, name: str, deed: Deed) -> None:
        kind, habit = deed.name.split()
        act, once = self._act, Deed(habit, deed.at, deed.what)
        if kind == "computed":

            def computed(self: Any) -> int:
                act(once, self.id, name)
                return int(self.id) + 1

            namespace[name] = computed_field(property(computed))
        elif kind == "field":

            def write(self: Any, value: Any) -> Any:
                act(once, self.id, name)
                return f"<{value}>"

            namespace["write_name"] = field_serializer("name")(write)
        elif kind == "model":

            def write_all(self: Any, handler: Any) -> Any:
                act(once, self.id, name)
                return {**handler(self), "wrapped": True}

            namespace["write_all"] = model_serializer(mode="wrap")(write_all)
        else:

            def model_dump_json(self: Any, **options: Any) -> str:
                act(once, self.id, name)
                return BaseModel.model_dump_json(self, **options) + " "

            namespace["model_dump_json"] = model_dump_json

    # --- steps ----------------------------------------------------------------------------

    def _step(self, kind: str, at: int, deeds: tuple[Deed, ...]) -> Callable[[Any], Any]:
        habits = [self._habit(f"{kind}{at}", deed) for deed in deeds]
        calls, place = self.calls, f"{kind} {at}"
        is_last = kind == "step" and self.spec.rooted and at == len(self.spec.steps) - 1

        def step(record: Any) -> Any:
            calls.append((place, record.get("id"), sorted(map(str, record))))
            for habit in habits:
                record = habit(record)
                if not isinstance(record, dict):
                    return record
            return {"root": record} if is_last else record

        return step

    def _habit(self, where: str, deed: Deed) -> Callable[[Any], Any]:
        make = getattr(self, "_habit_" + deed.name.replace(" ", "_"))
        return make(where, deed)  # type: ignore[no-any-return]  # all of them are

    def _habit_add(self, where: str, deed: Deed) -> Any:
        return lambda record: {**record, where: record.get("id")}

    def _habit_reuse(self, where: str, deed: Deed) -> Any:
        shared: Record = {}
        self._resets.append(shared.clear)

        def fill(record: Any) -> Any:
            new = dict(record)
            shared.clear()
            shared.update(new, reused=where)
            return shared

        return fill

    def _habit_put(self, where: str, deed: Deed) -> Any:
        return lambda record: {**record, "count": VALUES[deed.what]()}

    def _habit_raise(self, where: str, deed: Deed) -> Any:
        def fail(record: Any) -> Any:
            if record.get("id", record.get("n")) == deed.at:
                {**ERRORS, **EXITS}[deed.what]()
            return record

        return fail

    _habit_exit = _habit_raise

    def _habit_return(self, where: str, deed: Deed) -> Any:
        def give(record: Any) -> Any:
            at = record.get("id", record.get("n"))
            return RETURNS[deed.what](record) if at == deed.at else dict(record)

        return give

    def _habit_mutate(self, where: str, deed: Deed) -> Any:
        def mutate(record: Any) -> Any:
            record[where] = len(record)
            return record

        return mutate

    def _habit_mutate_inner(self, where: str, deed: Deed) -> Any:
        def mutate(record: Any) -> Any:
            if isinstance(record.get("inner"), dict):
                record["inner"]["n"] = record["inner"].get("n", 0) + 1
            return record

        return mutate

    def _habit_delete(self, where: str, deed: Deed) -> Any:
        def delete(record: Any) -> Any:
            for key in ("opt", "extra"):
                record.pop(key, None)
            return record

        return delete

    def _habit_share(self, where: str, deed: Deed) -> Any:
        def share(record: Any) -> Any:
            inner = record.get("inner")
            return {**record, "items": [inner, inner], "count": inner}

        return share

    def _habit_closure(self, where: str, deed: Deed) -> Any:
        count = 0

        def forget() -> None:
            nonlocal count
            count = 0

        def tell(record: Any) -> Any:
            nonlocal count
            count += 1
            return {**record, "count": count}

        self._resets.append(forget)
        return tell

    def _habit_default(self, where: str, deed: Deed) -> Any:
        cell: list[int] = []
        self._resets.append(cell.clear)

        def tell(record: Any, seen: list[int] = cell) -> Any:
            seen.append(1)
            record["count"] = len(seen)
            return record

        return tell

    def _habit_global(self, where: str, deed: Deed) -> Any:
        name = self.name
        self._resets.append(lambda: COUNTS.pop(name, None))

        def tell(record: Any) -> Any:
            COUNTS[name] = COUNTS.get(name, 0) + 1
            return {**record, "count": COUNTS[name]}

        return tell

    def _habit_class(self, where: str, deed: Deed) -> Any:
        class Counter:
            count = 0

            def __call__(self, record: Any) -> Any:
                Counter.count += 1
                return {**record, "count": Counter.count}

        self._resets.append(functools.partial(setattr, Counter, "count", 0))
        return Counter()

    def _habit_read(self, where: str, deed: Deed) -> Any:
        calls, name = self.calls, self.name
        return lambda record: {**record, "count": (len(calls), COUNTS.get(name))}

    def _habit_keep(self, where: str, deed: Deed) -> Any:
        kept: list[Any] = []
        self._resets.append(kept.clear)

        def keep(record: Any) -> Any:
            if kept:
                kept[-1]["late"] = record.get("id")
            result = {**record, "kept": len(kept)}
            kept.append(result)
            return result

        return keep

    def _habit_memo(self, where: str, deed: Deed) -> Any:
        memo: Record = {}
        self._resets.append(memo.clear)

        def look_up(record: Any) -> Any:
            memo["last"] = memo
            inner = memo.setdefault(str(record.get("id", 0) in (0, 2)), record.get("inner"))
            return {**record, "inner": inner}

        return look_up

    def _habit_cache(self, where: str, deed: Deed) -> Any:
        known: Record = {}
        self._resets.append(known.clear)

        def look_up(record: Any) -> Any:
            known["itself"] = known
            at = record.get("id", record.get("n"))
            return {**record, "count": known.setdefault(str(at), f"number {at}")}

        return look_up

    def _habit_grow(self, where: str, deed: Deed) -> Any:
        grown: Record = {}
        self._resets.append(grown.clear)

        def grow(record: Any) -> Any:
            grown.update(record)
            grown[f"seen {record.get('id')}"] = len(grown)
            return grown

        return grow


def _id_of(data: Any) -> Any:
    return data.get("id") if isinstance(data, dict) else getattr(data, "id", None)


# --- records ------------------------------------------------------------------------------


def records_of(spec: Spec) -> list[Any]:
    """Return a case's records, newly made each time."""
    records: list[Record] = [
        {
            "id": at,
            "name": f"n{at}",
            "inner": {"n": at, "tags": [at]},
            "items": [{"n": at}, {"n": 1}],
        }
        for at in range(spec.records)
    ]
    for at, oddity in spec.oddities:
        record = records[at]
        match oddity:
            case "bad name":
                record["name"] = ["secret"]
            case "no inner":
                record.pop("inner", None)
            case "text id":
                record["id"] = str(at)
            case _:
                record["extra"] = {"k": [at]}
    return records
