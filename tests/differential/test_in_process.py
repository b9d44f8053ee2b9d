"""In this process a batch equals a loop, whatever steps and validators do."""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from pyrmute_tasks import ModelManager
from tests.differential.chains import Chain, spec_of
from tests.differential.conftest import CASES, SLOW_CASES
from tests.differential.oracle import Run, as_raised_by_a_generator, call_of, loop, run_of

Take = Callable[[Any], None]
Way = Callable[[ModelManager, Chain, Iterable[Any], Take], None]


def _call(name: str, *, has_target: bool = False) -> Way:
    def run(manager: ModelManager, chain: Chain, source: Iterable[Any], take: Take) -> None:
        target = (chain.models[-1],) if has_target else ()
        size = (chain.spec.chunk_size,) if "streaming" in name else ()
        for output in getattr(manager, name)(source, *chain.hop, *target, *size):
            take(output)

    return run


def _loop(manager: ModelManager, chain: Chain, source: Iterable[Any], take: Take) -> None:
    migrate = call_of(manager, chain, "migrate")
    for record in source:
        take(migrate(record))


WAYS: Final[dict[str, tuple[str, Way]]] = {
    "migrate": ("migrate", _loop),
    "migrate_batch": ("migrate", _call("migrate_batch")),
    "migrate_batch_as": ("migrate_as", _call("migrate_batch_as", has_target=True)),
    "migrate_batch_data": ("migrate_data", _call("migrate_batch_data")),
    "migrate_batch_streaming": ("migrate", _call("migrate_batch_streaming")),
    "migrate_batch_streaming_as": (
        "migrate_as",
        _call("migrate_batch_streaming_as", has_target=True),
    ),
    "migrate_batch_data_streaming": ("migrate_data", _call("migrate_batch_data_streaming")),
}


def differences(expected: Run, got: Run, way: str) -> list[Any]:
    """Return how ours differs from the loop."""
    found: list[Any] = []
    is_stream = "streaming" in way
    wanted = as_raised_by_a_generator(expected.error) if is_stream else expected.error
    if got.error != wanted:
        found.append(("error", wanted, got.error))
    elif got.index not in (expected.index, None):
        found.append(("index", expected.index, got.index))
    elif got.index is None and _says_index(expected, way):
        found.append(("no index", expected.index, got.error))
    if is_stream or way == "migrate" or expected.error is None:
        found += _unequal("outputs", expected.outputs, got.outputs)
    found += _unequal("calls", expected.calls, got.calls)
    if expected.error is None or is_stream:
        found += _unequal("after", expected.after, got.after)
    return found


def _says_index(expected: Run, way: str) -> bool:
    return (
        way != "migrate"
        and expected.index is not None
        and expected.error is not None
        and expected.error[0][0] in ("MigrationError", "ValidationError")
    )


def _unequal(what: str, expected: Any, got: Any) -> list[Any]:
    return [] if got == expected else [(what, expected, got)]


def check(chain: Chain, way: str) -> None:
    call, deliver = WAYS[way]
    expected = loop(chain, call)
    ours = ModelManager()
    chain.register(ours)
    got = run_of(chain, lambda source, take: deliver(ours, chain, source, take))
    assert differences(expected, got, way) == [], chain.spec


@pytest.mark.parametrize("cases", [CASES, pytest.param(SLOW_CASES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
def test_in_process_batch_equals_a_loop(way: str, cases: int) -> None:
    @settings(
        max_examples=max(10, cases * 2 // 3 // len(WAYS)),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**40))
    def run(seed: int) -> None:
        check(Chain(spec_of(Random(seed)), "Case"), way)

    run()
