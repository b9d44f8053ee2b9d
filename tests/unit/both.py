"""One description of models and steps, registered with pyrmute and with this package."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyrmute
from pydantic import BaseModel, ValidationError

from pyrmute_tasks import ModelManager

Registration = Callable[[Any], Any]


@dataclass
class Both:
    """Two managers that hold the same classes and functions, so that they cannot drift."""

    theirs: pyrmute.ModelManager = field(default_factory=pyrmute.ModelManager)
    ours: ModelManager = field(default_factory=ModelManager)

    def model(self, name: str, version: str, *, backward_compatible: bool = False) -> Registration:
        def register(model: Any) -> Any:
            for manager in (self.theirs, self.ours):
                manager.model(name, version, backward_compatible=backward_compatible)(model)
            return model

        return register

    def migration(self, name: str, from_version: str, to_version: str) -> Registration:
        def register(step: Any) -> Any:
            for manager in (self.theirs, self.ours):
                manager.migration(name, from_version, to_version)(step)
            return step

        return register

    def call(self, method: str, *arguments: Any) -> tuple["Outcome", "Outcome"]:
        """Call a method of both managers; return both results, pyrmute's first."""
        return (
            outcome(getattr(self.theirs, method), *arguments),
            outcome(getattr(self.ours, method), *arguments),
        )

    def migrate_data(
        self, record: Any, name: str, first: str = "1.0.0", last: str = "2.0.0"
    ) -> Any:
        """Migrate with both, require equal results, and return them."""
        theirs, ours = self.call("migrate_data", record, name, first, last)
        assert ours == theirs
        return self.ours.migrate_data(record, name, first, last)


Outcome = tuple[Any, ...]
"""What a call returned, or the kind and the contents of what it raised."""


def outcome(call: Callable[..., Any], *arguments: Any) -> Outcome:
    before = copy.deepcopy(arguments)
    try:
        result = call(*arguments)
        if not isinstance(result, (bool, dict, list, BaseModel)):
            result = list(result)
        said: Outcome = ("returned", in_order(result))
    except ValidationError as error:
        said = ("ValidationError", error.title, error.errors(include_url=False))
    except (pyrmute.MigrationError, pyrmute.ModelNotFoundError, Exception) as error:
        parts = [getattr(error, part, None) for part in _ERROR_PARTS]
        said = (type(error).__name__, *parts, str(error), type(error.__cause__).__name__)
    assert repr(arguments) == repr(before), "the input was modified"
    return said


_ERROR_PARTS = ("name", "from_version", "to_version", "version", "reason")


def in_order(value: Any) -> Any:
    """Return `value` in a form that also compares the order of keys."""
    if isinstance(value, BaseModel):
        return (
            type(value),
            in_order(vars(value)),
            sorted(value.model_fields_set),
            in_order(value.__pydantic_extra__),
        )
    if isinstance(value, dict):
        return ["dict", *((key, in_order(item)) for key, item in value.items())]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(in_order, value)]
    return (type(value).__name__, repr(value))
