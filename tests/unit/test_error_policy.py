"""Which failures a job survives, judged in the order of the input."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrmute_tasks import ConfigurationError, ErrorPolicy, ModelManager, OnError, ProcessDiedError
from pyrmute_tasks.engine.error_policy import ErrorHandling, FailureJudge
from pyrmute_tasks.failures import RecordFailure, Stage


def failure(index: int, error: BaseException | None = None) -> RecordFailure:
    return RecordFailure(index, Stage.STEP, "", error or ValueError())


def end_of(policy: ErrorPolicy, failing: Iterable[int]) -> tuple[int | None, str]:
    """Return the record at which a job ends, and why."""
    judge = FailureJudge(policy)
    for index in failing:
        if not judge(failure(index)):
            return index, judge.exceeded
    return None, judge.exceeded


def test_first_failure_ends_a_job_by_default() -> None:
    assert end_of(ErrorPolicy(), [7, 8]) == (7, "")


def test_any_number_is_skipped_without_a_limit() -> None:
    assert end_of(ErrorPolicy.skip(), range(5000)) == (None, "")


@pytest.mark.parametrize("limit", [99, "99"])
def test_number_of_errors_is_exact(limit: int | str) -> None:
    index, why = end_of(ErrorPolicy.skip(limit), range(0, 3000, 3))
    assert index == 99 * 3
    assert why == "more than 99 records failed, the limit of max_errors"


def test_share_is_judged_from_a_thousand_records_on() -> None:
    policy = ErrorPolicy.skip("0.1%")
    assert end_of(policy, range(999)) == (None, "")  # all of these failed
    assert end_of(policy, range(1000))[0] == 999
    assert end_of(policy, [5, 999])[0] == 999  # 2 of 1,000
    assert end_of(policy, [5, 1998])[0] == 1998  # 2 of 1,999
    assert end_of(policy, [5, 1999, 2998])[0] == 2998  # 2 of 2,000, and 3 of 2,999
    assert end_of(policy, [5, 1999, 2999]) == (None, "")
    assert end_of(policy, [5, 1998])[1] == (
        "2 of 1,999 records failed, more than max_errors of 0.1%"
    )


@given(
    failing=st.sets(st.integers(0, 4000), max_size=60).map(sorted),
    tenths=st.integers(0, 30),
)
def test_share_is_exact_where_floats_are_not(failing: list[int], tenths: int) -> None:
    expected = next(
        (
            index
            for number, index in enumerate(failing, 1)
            if index >= 999 and 1000 * number > tenths * (index + 1)
        ),
        None,
    )
    share = f"{tenths // 10}.{tenths % 10}%"
    assert end_of(ErrorPolicy.skip(share), failing)[0] == expected


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_exits_and_interrupts_are_not_skipped(error: BaseException) -> None:
    judge = FailureJudge(ErrorPolicy.skip())
    assert not judge(failure(3, error))
    assert judge.exceeded == ""


def test_records_that_end_their_process_have_a_limit_of_their_own() -> None:
    judge = FailureJudge(ErrorPolicy.skip(max_crashes=2))
    died = [failure(n, ProcessDiedError("signal 9 (SIGKILL)")) for n in range(3)]
    assert judge(died[0])
    assert judge(failure(10))
    assert judge(died[1])
    assert not judge(died[2])
    assert "more than 2 records ended the process" in judge.exceeded


@pytest.mark.parametrize(
    "limit", ["", "many", "-1", -1, "1.5", 1.5, True, "101%", "1e3", "0,1%", "%", "0.1 % of all"]
)
def test_unknown_limit_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_errors must be a number"):
        ErrorPolicy.skip(limit)


def test_limit_of_a_policy_that_skips_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="add --on-error skip"):
        ErrorPolicy(max_errors=5)
    with pytest.raises(ConfigurationError, match="add on_error='skip'"):
        ErrorHandling.of("raise", print)
    with pytest.raises(ConfigurationError, match="max_crashes must be 0 or more"):
        ErrorPolicy.skip(max_crashes=-1)


def test_values_of_on_error() -> None:
    policy = ErrorPolicy.skip(7)
    assert ErrorPolicy.of(policy) is policy
    assert ErrorPolicy.of("skip") == ErrorPolicy.of(OnError.SKIP) == ErrorPolicy.skip()
    unknown: Any = "ignore"
    with pytest.raises(ConfigurationError, match="on_error must be 'raise', 'skip'"):
        ModelManager().migrate_batch([], "User", "1.0.0", "2.0.0", on_error=unknown)


def test_plain_word_is_the_member() -> None:
    """A caller that no type checker looks at must not get a policy that silently raises."""
    word: Any = "skip"
    policy = ErrorPolicy(word, 3)
    assert policy == ErrorPolicy.skip(3)
    assert policy.skips
    assert policy.on_error is OnError.SKIP


@pytest.mark.parametrize("word", ["skp", None, 1])
def test_unknown_word_is_reported(word: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_error must be 'raise', 'skip' or an"):
        ErrorPolicy(word)


@pytest.mark.parametrize("reject", ["rejects.jsonl", []])
def test_on_reject_that_is_not_a_function_is_reported_at_once(reject: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_reject must be a function"):
        ModelManager().migrate_batch(
            [], "User", "1.0.0", "2.0.0", on_error="skip", on_reject=reject
        )
