"""Field shapes: which values a field's type allows.

An annotation is read once into a `Shape`: the models a dict may be, the shapes of a list's
items, of a tuple's slots, of a mapping's values. Unions, ``Optional``, ``Annotated``, type
aliases and unregistered root models are flattened, so that compiling a step never looks at an
annotation. Recursive types give shapes that contain themselves.
"""

import enum
import types
from collections import OrderedDict, abc, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, Discriminator, RootModel, Tag
from pydantic.fields import FieldInfo

from pyrmute_tasks.pydantic_internals import is_complete

__all__ = [
    "Group",
    "Key",
    "Member",
    "Reader",
    "Shape",
    "fields_of",
    "input_keys",
    "keys_of",
    "tags_of",
]

Key: TypeAlias = str | Callable[[Any], Any]
"""A union's discriminator: a field's name, or a function."""


@dataclass(frozen=True, slots=True)
class Member:
    """A model that a value may be an instance of.

    Attributes:
        model: Its class.
        tag: The value that the discriminator function returns for it, if there is one.
    """

    model: type[BaseModel]
    tag: object = None


@dataclass(slots=True, eq=False)
class Group:
    """Models of one union that share a discriminator.

    Attributes:
        key: The discriminator; None if only validation tells them apart.
        members: The models, in the order of the union.
    """

    key: Key | None
    members: list[Member] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Shape:
    """The values that a field, an item or another part of a record may have.

    Attributes:
        annotation: The type it was read from.
        groups: The models that a dict may be.
        items: The shape of the items of a list, a set or a tuple of any length.
        slots: The shapes of the items of fixed-length tuples, one entry for each such type.
        values: The shape of a mapping's values.
        others: Whether other values are allowed, such as a number.
    """

    annotation: Any
    groups: list[Group] = field(default_factory=list)
    items: "Shape | None" = None
    slots: list[tuple["Shape", ...]] = field(default_factory=list)
    values: "Shape | None" = None
    others: bool = False

    @property
    def models(self) -> list[type[BaseModel]]:
        """All models allowed here, each once."""
        return list(dict.fromkeys(m.model for group in self.groups for m in group.members))


class Reader:
    """Reads annotations into shapes.

    Args:
        is_versioned: Whether a class is registered.
    """

    def __init__(self, is_versioned: Callable[[type[BaseModel]], bool]) -> None:
        self._is_versioned = is_versioned
        self._read: dict[Any, Shape] = {}
        self._joined: dict[tuple[int, ...], Shape] = {}

    def field(self, model: type[BaseModel], name: str) -> Shape:
        """Return the shape of a model's field."""
        info = fields_of(model)[name]
        key = _key_in([info, *info.metadata])
        if key is None:
            return self.shape(info.annotation)
        return self.shape(Annotated[info.annotation, Discriminator(key)])

    def shape(self, annotation: Any) -> Shape:
        """Return the shape of an annotation."""
        # Not by equality: A | B equals B | A, and their order matters.
        by_name = isinstance(annotation, type) or _is_alias(annotation)
        known = annotation if by_name else id(annotation)
        shape = self._read.get(known)
        if shape is None:
            # Stored before it is complete: a recursive type asks for itself.
            shape = self._read[known] = Shape(annotation)
            for kind, tag, group in self._members(annotation):
                self._add(shape, kind, tag, group)
        return shape

    def join(self, shapes: Sequence[Shape]) -> Shape:
        """Return the union of shapes."""
        known = tuple(id(shape) for shape in shapes)
        if known not in self._joined:
            # Stored, so that a recursive type gets the same shape again.
            self._joined[known] = self.shape(Union[tuple(shape.annotation for shape in shapes)])  # noqa: UP007  # made just now
        return self._joined[known]

    def _members(
        self, annotation: Any, group: Group | None = None, tag: object = None
    ) -> Iterator[tuple[Any, object, Group]]:
        """Yield the members of a union, however deep, or `annotation` itself."""
        kind, own_tag, key = self._unwrap(annotation)
        tag = own_tag if tag is None else tag
        if get_origin(kind) not in (Union, types.UnionType):
            yield kind, tag, group or Group(None)
            return
        if group is None or group.key is None:
            group, tag = Group(key) if key else group or Group(None), None
        # Inside a discriminated union, the outer key and tags apply.
        for member in get_args(kind):
            yield from self._members(member, group, tag)

    def _unwrap(self, annotation: Any) -> tuple[Any, object, Key | None]:
        """Return the type itself, its tag and its discriminator."""
        tag: object = None
        key: Key | None = None
        while True:
            if get_origin(annotation) is Annotated:
                annotation, *notes = get_args(annotation)
                tag = next((note.tag for note in notes if isinstance(note, Tag)), tag)
                key = key or _key_in(notes)
            elif _is_alias(annotation):
                annotation = _aliased(annotation)
            elif _is_model(annotation, RootModel) and not self._is_versioned(annotation):
                root = fields_of(annotation)["root"]
                key = key or _key_in([root, *root.metadata])
                annotation = root.annotation
            else:
                return annotation, tag, key

    def _add(self, shape: Shape, kind: Any, tag: object, group: Group) -> None:
        origin, arguments = get_origin(kind), get_args(kind)
        if _is_model(kind, BaseModel):
            if group not in shape.groups:
                shape.groups.append(group)
            group.members.append(Member(kind, tag))
        elif origin is tuple and arguments[-1:] != (...,):
            shape.slots.append(tuple(map(self.shape, arguments)))
        elif origin in _SEQUENCES and arguments:
            shape.items = self._merge(shape.items, arguments[0])
        elif origin in _MAPPINGS and len(arguments) == _KEY_AND_VALUE:
            shape.values = self._merge(shape.values, arguments[1])
        elif kind is not None and kind is not type(None):
            shape.others = True

    def _merge(self, shape: Shape | None, annotation: Any) -> Shape:
        read = self.shape(annotation)
        return read if shape is None else self.join([shape, read])


_KEY_AND_VALUE: Final = 2
_SEQUENCES: Final = frozenset(
    {list, tuple, set, frozenset, deque, abc.Sequence, abc.MutableSequence, abc.Iterable}
    | {abc.Collection, abc.Set, abc.MutableSet}
)
_MAPPINGS: Final = frozenset({dict, OrderedDict, defaultdict, abc.Mapping, abc.MutableMapping})


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields, with forward references resolved where possible."""
    if not is_complete(model):
        model.model_rebuild(raise_errors=False)
    return model.model_fields


def keys_of(info: FieldInfo) -> tuple[list[str], list[tuple[int | str, ...]]]:
    """Return the aliases of a field in input, and its alias paths.

    Returns:
        The aliases, and the paths into values of other keys.
    """
    keys = [alias for alias in (info.alias, info.serialization_alias) if alias]
    paths: list[tuple[int | str, ...]] = []
    wanted = info.validation_alias
    for choice in wanted.choices if isinstance(wanted, AliasChoices) else [wanted]:
        if isinstance(choice, str):
            keys.append(choice)
        elif isinstance(choice, AliasPath) and len(choice.path) == 1:
            keys.append(str(choice.path[0]))
        elif isinstance(choice, AliasPath):
            paths.append(tuple(choice.path))
    return list(dict.fromkeys(keys)), paths


def input_keys(name: str, info: FieldInfo) -> list[str]:
    """Return the keys under which validation finds a field, the preferred one first."""
    wanted = info.validation_alias
    choices = wanted.choices if isinstance(wanted, AliasChoices) else [wanted or name]
    return [choice for choice in choices if isinstance(choice, str)]


def tags_of(model: type[BaseModel], key: str) -> list[Any]:
    """Return the values of the discriminator field `key` that select `model`."""
    info = fields_of(model).get(key)
    if info is None:
        return []
    tags = list(_literals(info.annotation))
    if not info.is_required() and info.default_factory is None:
        tags.append(info.default)
    # A record read from JSON holds an enum's value, the type its member.
    tags.extend([tag.value for tag in tags if isinstance(tag, enum.Enum)])
    return tags


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif get_origin(annotation) in (Union, types.UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _literals(argument)


def _is_model(kind: Any, base: type[BaseModel]) -> bool:
    return get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, base)


def _key_in(notes: list[Any]) -> Key | None:
    for note in notes:
        if isinstance(note, (FieldInfo, Discriminator)):
            key: Any = note.discriminator
            key = key.discriminator if isinstance(key, Discriminator) else key
            if key is not None:
                return key  # type: ignore[no-any-return]  # pydantic lets nothing else in
    return None


def _is_alias(annotation: Any) -> bool:
    return hasattr(get_origin(annotation) or annotation, "__value__")


def _aliased(alias: Any) -> Any:
    """Return the type behind an alias, with its parameters filled in."""
    if get_origin(alias) is None:
        return alias.__value__
    value = get_origin(alias).__value__
    try:
        return value[get_args(alias)]
    except TypeError:
        return value
