"""Records: the accepted kinds, and their conversion to dicts."""

import dataclasses
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from pydantic import BaseModel, RootModel

from pyrmute_tasks.errors import InvalidRecordError

__all__ = ["AttrsInstance", "DataclassInstance", "RecordLike", "as_record"]


class DataclassInstance(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


class AttrsInstance(Protocol):
    """An instance of a class made by attrs."""

    @property
    def __attrs_attrs__(self) -> Any: ...


RecordLike: TypeAlias = Mapping[str, Any] | BaseModel | DataclassInstance | AttrsInstance
"""A record as callers may have it; steps always get a dict."""

_DICTS: Final = (dict, OrderedDict, defaultdict, Counter)  # carried to workers as they are


def as_record(record: Any) -> Any:
    """Convert a record of another kind to a dict.

    Args:
        record: A dict, which stays itself; another mapping; an instance of a pydantic model, a
            dataclass or a class made by attrs.

    Returns:
        A dict: what ``dict``, ``model_dump(round_trip=True)``, ``dataclasses.asdict`` or
        ``attrs.asdict`` makes of it. What is none of these stays itself, for the step to judge.

    Raises:
        InvalidRecordError: If they raise.
    """
    kind = type(record)
    if kind in _DICTS:
        return record
    try:
        if isinstance(record, Mapping):
            return dict(record)
        if isinstance(record, RootModel):
            return {"root": record.model_dump(round_trip=True)}
        if isinstance(record, BaseModel):
            return record.model_dump(round_trip=True)
        if hasattr(kind, "__dataclass_fields__"):
            return dataclasses.asdict(record)
        if hasattr(kind, "__attrs_attrs__"):
            return sys.modules["attr"].asdict(record)  # it is loaded: it made the class
    except Exception as error:
        raise InvalidRecordError(
            f"a record is {kind.__name__} and cannot be made a dict; convert it in the source"
        ) from error
    return record
