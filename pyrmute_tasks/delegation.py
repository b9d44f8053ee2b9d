"""A manager of pyrmute's, filled from one of ours, for the calls delegated to pyrmute.

A `ModelManager` notes what is registered with it. When it is asked for schemas, differences or
exports, `PyrmuteMirror` repeats that on a ``pyrmute.ModelManager``. Nothing of pyrmute is imported
before; the extra ``pyrmute`` installs it.
"""

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from pyrmute_tasks.errors import MissingExtraError, as_ours

if TYPE_CHECKING:
    import pyrmute

__all__ = ["PyrmuteMirror", "errors_as_ours", "name_of_pyrmute"]


def name_of_pyrmute(module: str, name: str, used_by: str = "") -> Any:
    """Import a name of pyrmute's.

    Args:
        module: Its module, ``pyrmute`` or one below.
        name: The name.
        used_by: The user of the name, for the error message, if other than the caller.

    Raises:
        AttributeError: If pyrmute has no such name.
        MissingExtraError: If pyrmute is not installed.
    """
    return getattr(_import_pyrmutes(module, used_by or name), name)


def _import_pyrmutes(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyrmute":
            raise
        raise MissingExtraError(what) from None


class PyrmuteMirror:
    """A manager of pyrmute's with the models and steps of one of ours, created on first use.

    Args:
        default_schema_config: Its default configuration of schemas.
    """

    def __init__(self, default_schema_config: "pyrmute.SchemaConfig | None" = None) -> None:
        self._config = default_schema_config
        self._noted: list[tuple[methodcaller, object]] = []
        self._manager: pyrmute.ModelManager | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: all but the lock."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Fill a copy."""
        vars(self).update(state, _lock=threading.Lock())

    def note(self, method: str, *arguments: object, decorated: object = None) -> None:
        """Record a call to repeat on pyrmute's manager before its next use.

        Args:
            method: A public method of a ``pyrmute.ModelManager``.
            arguments: Its arguments.
            decorated: If the method returns a decorator, what it decorates.
        """
        self._noted.append((methodcaller(method, *arguments), decorated))

    def manager(self, what: str) -> "pyrmute.ModelManager":
        """Return pyrmute's manager, with all recorded calls applied.

        Args:
            what: The call it is needed for, for the error message.

        Raises:
            MissingExtraError: If pyrmute is not installed.
        """
        with self._lock:
            if self._manager is None:
                pyrmute = _import_pyrmutes("pyrmute", what)
                self._manager = pyrmute.ModelManager(self._config)
            while self._noted:
                call, decorated = self._noted[0]  # kept until it has succeeded
                made = call(self._manager)
                if decorated is not None:
                    made(decorated)
                del self._noted[0]
            return self._manager


@contextmanager
def errors_as_ours() -> Iterator[None]:
    """Raise pyrmute's errors as ours."""
    try:
        yield
    except Exception as error:
        ours = as_ours(error)
        if ours is error:
            raise
        raise ours from ours.__cause__
