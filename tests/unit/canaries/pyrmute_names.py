"""Undocumented behaviour of pyrmute and Python that the calls for pyrmute's users rely on."""

import pyrmute
import pytest

from tests.unit.canaries.table import internal


@internal(
    "pyrmute",
    "`ModelManager._migration_manager`, its `_hooks`",
    r"_migration_manager\._hooks",
    purpose="A `pyrmute.MetricsHook` of the producer counts what workers migrate.",
    until="when pyrmute's manager tells its hooks",
)
def check_hooks() -> None:
    manager, hook = pyrmute.ModelManager(), pyrmute.MetricsHook()
    manager.add_hook(hook)
    assert manager._migration_manager._hooks == [hook]
    manager.remove_hook(hook)
    assert manager._migration_manager._hooks == []


@internal(
    "python",
    "assignment to `__bases__` of exception classes",
    r"ours\.__bases__ = ",
    purpose="An `except` of either library's class catches our errors, and pyrmute is not imported "
    "for it.",
    until="when pyrmute's errors are a dependency",
)
def check_bases_can_be_assigned() -> None:
    class Base(Exception):
        pass

    class Ours(Base):
        pass

    class Derived(Ours):
        pass

    class Theirs(Exception):
        pass

    made = Derived()
    Ours.__bases__ = (*Ours.__bases__, Theirs)
    assert isinstance(made, Theirs)
    with pytest.raises(Theirs):
        raise made
