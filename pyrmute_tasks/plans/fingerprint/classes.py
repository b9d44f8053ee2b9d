"""Classes as text: models, enums, dataclasses and all other classes of the user's packages."""

import dataclasses
import enum
import inspect
import types
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from pyrmute_tasks.plans.field_shapes import fields_of
from pyrmute_tasks.plans.fingerprint.described import Describer
from pyrmute_tasks.plans.fingerprint.nodes import Content, Nodes
from pyrmute_tasks.pydantic_internals import decorators_of, is_pydantics_name, private_attributes

__all__ = ["describe_class"]

_GENERATED: Final = ("<string>", "<attrs ")  # file names of code made by dataclasses and attrs
_SKIPPED: Final = frozenset(
    {"_abc_impl", "__annotations__", "__annotate__", "__annotate_func__", "__class_vars__"}
    | {"__annotations_cache__", "__dataclass_fields__", "__dict__", "__doc__", "__eq_kw__"}
    | {"__firstlineno__", "__match_args__", "__module__", "__orig_bases__", "__parameters__"}
    | {"__qualname__", "__signature__", "__static_attributes__", "__weakref__", "model_config"}
    | {"model_fields", "model_computed_fields", "__abstractmethods__"}
    | {"__get_pydantic_json_schema__", "__classcell__"}
    | {"__optional_keys__", "__required_keys__", "__readonly_keys__", "__mutable_keys__"}
    | {"__non_callable_proto_members__", "__protocol_attrs__", "_is_protocol"}
    | {"_is_runtime_protocol", "__attrs_attrs__", "__type_params__", "__orig_class__"}
)
_CONFIG_THAT_DOCUMENTS: Final = frozenset(
    {"defer_build", "field_title_generator", "json_schema_extra", "json_schema_mode_override"}
    | {"json_schema_serialization_defaults_required", "model_title_generator"}
    | {"protected_namespaces", "use_attribute_docstrings", "schema_generator"}
)
_DECORATED: Final = (
    "fields",
    "mode",
    "when_used",
    "is_field_serializer",
    "alias",
)


def describe_class(kind: type, describer: Describer, nodes: Nodes, out: Content) -> None:
    """Describe a class by its own attributes, and by references to its bases."""
    if type(kind) is not type:
        describer.kind(type(kind), out)
    out.add(kind.__name__)  # a model's errors show it
    describer.all(vars(kind).get("__orig_bases__", ()), out)
    describer.all(kind.__bases__, out)
    if issubclass(kind, BaseModel):
        _describe_model(kind, describer, out)
    elif issubclass(kind, enum.Enum):
        for name, member in kind.__members__.items():
            out.add(f"member {name}")
            describer.value(member._value_, out)
        describer.named(_own_code(kind, nodes), out)
        return
    else:
        _describe_fields(kind, describer, out)
    own = {
        name: value
        for name, value in vars(kind).items()
        if not (name in _SKIPPED or is_pydantics_name(name)) or name in _HOOKS
        if not _is_generated(value)
    }
    describer.named(own, out)


_HOOKS: Final = frozenset({"__get_pydantic_core_schema__", "__pydantic_init_subclass__"})


def _describe_model(model: type[BaseModel], describer: Describer, out: Content) -> None:
    base = next((base for base in model.__mro__[1:] if issubclass(base, BaseModel)), BaseModel)
    known = base.model_config
    config = {
        key: value
        for key, value in model.model_config.items()
        if key not in _CONFIG_THAT_DOCUMENTS and (key not in known or known[key] is not value)  # type: ignore[literal-required]  # a key of the same kind
    }
    describer.named(config, out, outer=True)
    fields = fields_of(model)
    inherited = fields_of(base) if base is not BaseModel else {}
    for name, info in fields.items():
        field, before = Content(), Content()
        describer.field(info, field)
        if name in inherited:
            describer.field(inherited[name], before)
            if before.parts == field.parts and before.refs == field.refs:
                continue  # described with the base
        out.add(f"field {name}")
        out.extend(field)
    out.add(*(f"then {name}" for name in vars(model).get("__annotations__", ()) if name in fields))
    private, known_private = private_attributes(model), private_attributes(base)
    own = {}
    for name, part in private.items():
        default, before = Content(), Content()
        describer.value(part, default)
        describer.value(known_private.get(name), before)
        if (default.parts, default.refs) != (before.parts, before.refs):
            own[name] = part
    describer.named(own, out)
    _describe_decorators(decorators_of(model), vars(model), describer, out)


def _describe_decorators(
    decorators: Any, own: Mapping[str, Any], describer: Describer, out: Content
) -> None:
    """Describe a model's validators and serializers, in their order."""
    for kind in dataclasses.fields(decorators) if decorators is not None else ():
        for name, decorator in getattr(decorators, kind.name).items():
            if name not in own:
                continue  # inherited
            out.add(f"{kind.name} {name}")
            for part in _DECORATED:
                value = getattr(decorator.info, part, None)
                if value is not None:
                    out.add(f"{part}=")
                    describer.value(value, out)
            function = inspect.unwrap(getattr(own[name], "fget", None) or _plain(own[name]))
            notes = getattr(function, "__annotations__", {})
            describer.value(notes.get("return"), out, outer=True)


def _plain(value: Any) -> Any:
    return getattr(value, "__func__", value)


def _describe_fields(kind: type, describer: Describer, out: Content) -> None:
    """Describe the fields of dataclasses, named tuples and typed dicts."""
    own = vars(kind)
    annotations = own.get("__annotations__", {})
    in_order = "__dataclass_fields__" in own or hasattr(kind, "_fields") or "__total__" in own
    for name in annotations if in_order else sorted(annotations):
        out.add(f"{name}:")
        describer.value(annotations[name], out, outer=True)
    for name, part in own.get("__dataclass_fields__", {}).items():
        out.add(f"field {name} {part.init} {part.compare} {part.kw_only}")
        for value in (part.default, part.default_factory):
            if value is not dataclasses.MISSING:
                describer.value(value, out, outer=True)
    for name in ("__required_keys__", "__pydantic_config__"):
        describer.value(own.get(name), out, outer=True)
    _describe_decorators(decorators_of(kind), own, describer, out)


def _own_code(kind: type, nodes: Nodes) -> dict[str, Any]:
    """Return an enum's methods, without those that `enum` adds."""
    found = {}
    for name, value in vars(kind).items():
        code = _plain(getattr(value, "fget", None) or value)
        module = getattr(code, "__globals__", {}).get("__name__", "")
        if isinstance(code, types.FunctionType) and nodes.owns(module):
            found[name] = value
    return found


def _is_generated(value: Any) -> bool:
    function = _plain(value)
    if isinstance(function, types.FunctionType):
        function = vars(function).get("__wrapped__", function)  # as a dataclass's repr has
    code = getattr(function, "__code__", None)
    return isinstance(code, types.CodeType) and code.co_filename.startswith(_GENERATED)
