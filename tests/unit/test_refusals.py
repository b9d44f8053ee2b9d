"""A store's temporary refusals count as an outage; permanent ones are errors."""

import socket
import threading
import time

import pytest
import redis
from redis._parsers.base import BaseParser
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyrmute_tasks.distributed.redis_retry import TimedRetry
from pyrmute_tasks.distributed.refusals import (
    find_refusal,
    passing_refusal,
    refuses_connections,
    trouble_of,
)
from pyrmute_tasks.errors import StoreUnavailableError

REPLIES = {
    "READONLY": "READONLY You can't write against a read only replica.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "BUSY": "BUSY Redis is busy running a script. You can only call SCRIPT KILL.",
    "CLUSTERDOWN": "CLUSTERDOWN Hash slot not served",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'.",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation (master -> replica?)",
}
FOR_GOOD = (
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM this user has no permissions to run the 'hset' command",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "BUSYGROUP Consumer Group name already exists",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR unknown command",
)


def error_of(reply: str) -> redis.RedisError:
    error = BaseParser.parse_error(reply)  # type: ignore[no-untyped-call]  # redis-py's own
    assert isinstance(error, redis.RedisError)
    return error


def in_pipeline(reply: str, command: str) -> redis.RedisError:
    error = error_of(reply)
    message = f"Command # 1 ({command}) of pipeline caused error: {error.args[0]}"
    error.args = (message, *error.args[1:])
    return error


@pytest.mark.parametrize("word", REPLIES)
def test_temporary_refusal_is_recognised_wherever_raised(word: str) -> None:
    reply = REPLIES[word]
    assert passing_refusal(error_of(reply)) == word
    assert passing_refusal(in_pipeline(reply, "HSET key 0 value")) == word
    assert passing_refusal(error_of(f"{reply} script: 3f2, on @user_script:3.")) == word
    old = f"ERR Error running script (call to f_3f2): @user_script:2: @user_script: 2: -{reply}"
    assert passing_refusal(error_of(old)) == word
    assert trouble_of(error_of(reply)).startswith(f"{word}: ")


@pytest.mark.parametrize("reply", FOR_GOOD)
def test_other_errors_are_permanent(reply: str) -> None:
    assert passing_refusal(error_of(reply)) is None
    assert passing_refusal(in_pipeline(reply, "HSET key 0 READONLY of pipeline -BUSY x")) is None


def test_quoted_command_is_not_taken_for_a_refusal() -> None:
    quoted = "HSET key 0 (x) of pipeline caused error: READONLY record"
    error = in_pipeline("WRONGTYPE Operation against a key", quoted)
    assert passing_refusal(error) is None
    assert "record" not in trouble_of(error)


def test_temporary_refusal_is_retried_over_a_new_connection() -> None:
    answers = [error_of(REPLIES["READONLY"]), in_pipeline(REPLIES["BUSY"], "HSET a b c"), None]
    closed: list[object] = []

    def do() -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "done"

    assert TimedRetry(5.0).call_with_retry(do, closed.append) == "done"
    assert len(closed) == 2


@pytest.mark.parametrize("word", REPLIES)
def test_a_refusal_that_does_not_pass_ends_with_the_time(word: str) -> None:
    def do() -> None:
        raise error_of(REPLIES[word])

    began = time.monotonic()
    with pytest.raises(redis.RedisError) as caught:
        TimedRetry(0.3).call_with_retry(do, lambda _: None)
    assert passing_refusal(caught.value) == word
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("reply", FOR_GOOD)
def test_permanent_error_is_raised_at_once(reply: str) -> None:
    tries = []

    def do() -> None:
        tries.append(1)
        raise error_of(reply)

    with pytest.raises(redis.RedisError):
        TimedRetry(5.0).call_with_retry(do, lambda _: None)
    assert len(tries) == 1


def test_nothing_is_tried_again_after_giving_up() -> None:
    patience = TimedRetry(60.0)
    threading.Timer(0.2, patience.give_up).start()

    def do() -> None:
        raise error_of(REPLIES["READONLY"])

    began = time.monotonic()
    with pytest.raises(redis.ReadOnlyError):
        patience.call_with_retry(do, lambda _: None)
    assert time.monotonic() - began < 2.0


def test_connection_is_refused_only_where_nothing_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(redis.ConnectionError) as caught:
            redis.Redis(port=bound.getsockname()[1], retry=Retry(NoBackoff(), 0)).ping()
    assert refuses_connections(caught.value)
    assert not refuses_connections(redis.ConnectionError("Connection closed by server."))
    assert not refuses_connections(redis.TimeoutError("Timeout connecting to server"))


def test_refusal_of_an_earlier_call_is_not_its_retrys() -> None:
    """It is retried where its error is handled, as loops around jobs do."""
    found: list[redis.TimeoutError] = []
    earlier = (
        ConnectionRefusedError(),
        redis.AuthenticationError(),
        redis.ReadOnlyError("READONLY"),
    )
    for cause in earlier:
        try:
            try:
                raise cause
            except Exception:
                raise StoreUnavailableError("no store answers") from None
        except StoreUnavailableError:
            try:
                raise redis.TimeoutError
            except redis.TimeoutError as error:
                found.append(error)
    assert len(found) == len(earlier)
    for late in found:
        assert late.__context__ is not None
        assert not refuses_connections(late)
        assert find_refusal(late) is None
        assert passing_refusal(late) is None


@pytest.mark.parametrize(
    "handled",
    [ConnectionRefusedError(), socket.gaierror(), redis.AuthenticationError(), PermissionError()],
)
def test_handled_error_of_a_caller_is_not_a_refusal(handled: Exception) -> None:
    """A job may be started in an ``except`` block of the user's."""
    tries: list[BaseException] = []

    def do() -> str:
        if len(tries) < 2:
            try:
                raise TimeoutError
            except TimeoutError as error:
                raise redis.TimeoutError from error
        return "done"

    def is_final(error: Exception) -> bool:
        return refuses_connections(error) or find_refusal(error) is not None

    try:
        raise handled
    except Exception:
        assert TimedRetry(5.0, is_final).call_with_retry(do, tries.append) == "done"
    assert len(tries) == 2
    for error in tries:
        assert isinstance(error.__cause__, TimeoutError)  # what is behind it stays
