"""Surveys run beside collecting: no call waits for one, and none is lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from pyrmute_tasks.distributed.producer.surveys import ThreadedSurveyor
from pyrmute_tasks.distributed.protocol import Survey
from pyrmute_tasks.errors import BrokerUnavailableError, FleetError
from tests.conftest import wait_until


class Servers:
    """A store and a broker that answer on command."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.surveys = self.touches = self.closed = 0

    def survey(self, job: str, waiting: int | None = None, *, is_busy: bool = False) -> Survey:
        self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        self.surveys += 1
        return Survey(True, waiting, {}, [], [])

    def touch_job(self, job: str) -> bool:
        self.touches += 1
        if self.touches == 1:
            raise redis.ConnectionError
        if self.touches == 2:
            raise FleetError("the embedded server has ended")
        return True

    def ask(self) -> int | None:
        return 7

    def close(self) -> None:
        self.closed += 1


@contextmanager
def surveyor(servers: Servers, touch_every_s: float = 30.0) -> Iterator[ThreadedSurveyor]:
    found = ThreadedSurveyor(servers, servers, "job", touch_every_s)
    found.begin()
    try:
        yield found
    finally:
        servers.may_answer.set()
        found.end()


def waited_for(ask: Callable[[], Survey | None]) -> Survey:
    found: list[Survey] = []

    def is_there() -> bool:
        survey = ask()
        found.extend([] if survey is None else [survey])
        return survey is not None

    wait_until(is_there, "a survey is there")
    return found[0]


def test_survey_is_returned_once_and_only_on_request() -> None:
    with surveyor(Servers()) as found:
        assert found.report() is None
        assert found.request(is_busy=True)
        assert waited_for(found.report).waiting == 7
        assert found.report() is None
        assert found.request(is_busy=True)


def test_unread_survey_is_not_returned_for_a_later_request() -> None:
    servers = Servers()
    with surveyor(servers) as found:
        assert found.request(is_busy=True)
        wait_until(lambda: found._survey is not None, "it is ready")
        assert not found.request(is_busy=True)
        assert found.report() is not None
        assert found.request(is_busy=True)


def test_silent_server_delays_no_call() -> None:
    servers = Servers()
    servers.may_answer.clear()
    with surveyor(servers) as found:
        assert found.request(is_busy=True)
        assert not found.request(is_busy=True), "one is on its way"
        assert found.report() is None
        servers.may_answer.set()
        waited_for(found.report)
    assert servers.surveys == 1


def test_error_of_a_survey_is_raised_to_its_reader() -> None:
    servers = Servers()
    servers.error = BrokerUnavailableError("refused")
    with surveyor(servers) as found:
        found.request(is_busy=True)
        with pytest.raises(BrokerUnavailableError, match="refused"):
            waited_for(found.report)
        servers.error = None
        found.request(is_busy=True)
        waited_for(found.report)


def test_keys_are_kept_alive_between_collects() -> None:
    servers = Servers()
    with surveyor(servers, touch_every_s=0.01) as found:
        wait_until(lambda: servers.touches > 3, "they were renewed, also after errors")
        assert servers.surveys == 0
        found.request(is_busy=True)
        waited_for(found.report)


def test_request_right_after_a_wait_timed_out_is_not_lost() -> None:
    class LateRequest(threading.Event):
        """A request between the end of a wait and the handling of it."""

        is_first = True

        def wait(self, timeout: float | None = None) -> bool:
            if self.is_first:
                self.is_first = False
                found.request(is_busy=True)
                return False
            return super().wait(timeout)

    servers = Servers()
    found = ThreadedSurveyor(servers, servers, "job", 30.0)
    found._wanted = LateRequest()
    found.begin()
    waited_for(found.report)
    found.end()


def test_nothing_is_asked_after_the_end() -> None:
    servers = Servers()
    with surveyor(servers, touch_every_s=0.01) as found:
        pass
    wait_until(lambda: servers.closed, "its thread has ended")
    touches = servers.touches
    found.request(is_busy=True)
    assert found.report() is None
    assert (servers.surveys, servers.touches) == (0, touches)


def test_a_job_may_end_in_the_thread_of_its_surveys() -> None:
    errors: list[BaseException] = []

    class Collecting(Servers):
        """Collects garbage during a survey, and with it the stream of the job."""

        def survey(self, job: str, waiting: int | None = None, *, is_busy: bool = False) -> Survey:
            try:
                found.end()
            except RuntimeError as error:
                errors.append(error)
            return super().survey(job, waiting, is_busy=is_busy)

    servers = Collecting()
    with surveyor(servers) as found:
        found.request(is_busy=True)
        wait_until(lambda: servers.closed, "its thread has ended")
    assert not errors
