"""Managers with many chains, which every process builds alike from their names.

``cases_100_50`` holds 100 chains whose results depend on each record alone, 50 whose models
are written as lines, one for each row of the table of habits, and `unions`.
"""

import re
from random import Random
from typing import Any, Final

from pyrmute_tasks import ModelManager
from tests.differential import unions
from tests.differential.chains import Chain, Deed, Spec, Version, spec_of

__all__ = ["CHAINS", "ROWS", "chain_of"]

CHAINS: Final[dict[str, list[Chain]]] = {}
"""The chains of the manager that was asked for: records, lines, and rows."""


def chain_of(seed: int, *, lines: bool = False) -> Chain:
    """Return the chain of a seed, whose results depend on each record alone."""
    name = f"Line{seed}" if lines else f"Case{seed}"
    return Chain(spec_of(Random(seed), local=True, lines=lines), name)


def _row(
    *steps: tuple[Deed, ...] | None,
    last: Version | None = None,
    source: str = "list",
    oddities: tuple[tuple[int, str], ...] = (),
) -> Spec:
    versions = (*(Version() for _ in steps), last or Version())
    nested = tuple(None for _ in steps)
    return Spec(versions, steps, nested, False, 4, oddities, source, 0, 2)


def _checked(*config: tuple[str, Any], mode: str = "before", deed: Deed) -> Version:
    return Version(config, ((mode, deed),))


def _raising(what: str) -> Spec:
    return _row((Deed("raise", 2, what),), (Deed("add"),))


def _exiting(what: str) -> Spec:
    return _row((Deed("exit", 2, what),))


_ADD: Final = (Deed("add"),)
_BAD: Final = ((2, "bad name"),)

ROWS: Final[dict[str, Spec]] = {
    "validator modifies, third is bad": _row(
        _ADD,
        last=_checked(mode="model before", deed=Deed("change")),
        oddities=((2, "no inner"),),
    ),
    "validator modifies its record": _row(
        (Deed("mutate"),), last=_checked(mode="model before", deed=Deed("change"))
    ),
    "step returns the same dict": _row((Deed("reuse"),)),
    "step reads what another counted": _row((Deed("global"),), (Deed("read"),)),
    "the same record three times": _row((Deed("mutate inner"),), (Deed("closure"),), source="same"),
    "a source reuses its dict": _row(_ADD, source="reusing"),
    "an error causes itself": _raising("its own cause"),
    "SystemExit": _exiting("exit 3"),
    "SystemExit with a text": _exiting("exit text"),
    "KeyboardInterrupt": _exiting("interrupt"),
    "CancelledError": _exiting("cancelled"),
    "GeneratorExit": _exiting("GeneratorExit"),
    "an exit of one's own": _exiting("OwnExit"),
    "a group with an exit": _exiting("exit group"),
    "memo that holds itself": _row((Deed("memo"),)),
    "memo by record": _row((Deed("cache"),)),
    "enum": _row((Deed("put", what="enum"),)),
    "enum key": _row((Deed("put", what="enum key"),)),
    "bytearray": _row((Deed("put", what="bytearray"),)),
    "memoryview": _row((Deed("put", what="memoryview"),)),
    "hidden input": _row(_ADD, last=Version((("hide_input_in_errors", True),)), oddities=_BAD),
    "title": _row(_ADD, last=Version((("title", "A title"),)), oddities=_BAD),
    "own ValueError": _row(_ADD, last=_checked(deed=Deed("raise", 2, "OwnValueError"))),
    "cause of a validation error": _row(
        _ADD,
        last=_checked(("validation_error_cause", True), deed=Deed("raise", 2, "ValueError")),
    ),
    "subclass": _row(_ADD, last=_checked(mode="subclass", deed=Deed("add"))),
    "omitted": _row(_ADD, last=_checked(deed=Deed("raise", 2, "omit"))),
    "lack of memory": _raising("MemoryError"),
    "an error without a text": _raising("Unprintable"),
    "an error that refuses attributes": _raising("Frozen"),
    "an error that holds itself": _raising("HoldsItself"),
    "a validator raises such errors": _row(_ADD, last=_checked(deed=Deed("raise", 2, "Frozen"))),
    "the same inner dict twice": _row((Deed("share"),)),
    "a zone without a name": _row((Deed("put", what="unnamed zone"),)),
}
"""The table of habits that once made a batch differ from a loop, as cases."""


def __getattr__(name: str) -> Any:
    found = re.fullmatch(r"cases_(\d+)_(\d+)", name)
    if found is None:
        raise AttributeError(name)
    records, lines = map(int, found.groups())
    made = {
        "records": [chain_of(seed) for seed in range(records)],
        "lines": [chain_of(seed, lines=True) for seed in range(lines)],
        "rows": [Chain(spec, f"Row{at}") for at, spec in enumerate(ROWS.values())],
    }
    manager = ModelManager()
    for chain in (*made["records"], *made["lines"], *made["rows"]):
        chain.register(manager)
    unions.register(manager)
    CHAINS.update(made)
    globals()[name] = manager
    return manager
