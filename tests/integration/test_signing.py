"""With a secret, messages written without it change no output."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from kombu.pidbox import Mailbox

from pyrmute_tasks import Migrator
from pyrmute_tasks.distributed.app import create_app
from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import NoWorkersError, SignatureError
from pyrmute_tasks.wire.frames import pack
from pyrmute_tasks.wire.signing import Sealed, Signer
from tests.conftest import is_alive, wait_until
from tests.fleets import QUEUE, RabbitMQ, private_fleet, rabbitmq_fleet
from tests.integration.hostile import Envelope, arguments, frame
from tests.integration.test_hostile_messages import (
    FINGERPRINT,
    HOP,
    LINE,
    LONG_S,
    RECORDS,
    Target,
    Victim,
    outcome,
)
from tests.people import manager, person

SECRET: Final = "the secret of these tests"
OTHER: Final = "another secret than theirs"
ours, theirs = Signer([SECRET]), Signer([OTHER])


@pytest.fixture(scope="module")
def the_target() -> Iterator[Target]:
    with (
        private_fleet("tests.people:manager", secret=SECRET) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        yield Target(fleet, migrator)


@pytest.fixture
def target(the_target: Target) -> Iterator[Target]:
    yield the_target
    the_target.works()
    the_target.fleet.store.flushall()


def is_whole(victim: Victim) -> None:
    victim.survived()
    assert victim._outputs == manager.migrate_batch_data(victim._records, *HOP)


def id_of(job: str) -> str:
    return job.removeprefix("pt:{").removesuffix("}")


# --- what is there is signed ----------------------------------------------------------------


def test_everything_in_the_store_is_signed(target: Target) -> None:
    found: dict[str, bytes] = {}

    def look(store: Any, job: str) -> None:
        found["spec"] = store.hget(f"{job}:job", "spec")
        found["frame"] = store.hget(f"{job}:in", "3")
        found["claim"] = store.hvals(f"{job}:claims")[0].partition(b" ")[2]
        found["beat"] = store.hvals(f"pt:workers:{QUEUE}")[0].partition(b" ")[2]
        assert len(id_of(job)) == 16

    is_whole(Victim(target).run(look))
    assert all(value.startswith(b"\xc1S1") for value in found.values()), found


# --- the producer's words -------------------------------------------------------------------


FORGED_FRAMES: Final[dict[str, Callable[[Any, str], bytes]]] = {
    "unsigned": lambda _, _job: frame(b'{"name":"E F","age":9}\n'),
    "another secret": lambda _, job: theirs.seal(
        Sealed.FRAME, id_of(job), "3", frame(pack([{"name": "E F", "age": 9}]), kind=1)
    ),
    "another part": lambda store, job: store.hget(f"{job}:in", "2"),
    "another job": lambda _, _job: ours.seal(Sealed.FRAME, "0123abcd", "3", frame(LINE)),
    "an outcome": lambda _, job: ours.seal(Sealed.OUTCOME, id_of(job), "3", frame(LINE)),
    "altered": lambda store, job: store.hget(f"{job}:in", "3")[:-1] + b"\0",
    "empty": lambda _, _job: b"",
}


@pytest.mark.parametrize("forge", FORGED_FRAMES.values(), ids=FORGED_FRAMES)
def test_a_forged_frame_is_not_migrated(target: Target, forge: Callable[[Any, str], bytes]) -> None:
    def put(store: Any, job: str) -> None:
        store.hset(f"{job}:in", "3", forge(store, job))

    is_whole(Victim(target).run(put))
    assert "is not to be trusted" in target.worker.log


@pytest.mark.parametrize("signer", [Signer(), theirs, ours], ids=["unsigned", "theirs", "replay"])
def test_a_forged_spec_is_not_followed(target: Target, signer: Signer) -> None:
    def put(store: Any, job: str) -> None:
        spec = JobSpec("0123abcd", *HOP, kind=1, fingerprint=FINGERPRINT)  # type: ignore[arg-type]
        store.hset(f"{job}:job", "spec", signer.seal(Sealed.SPEC, spec.id, "", spec.to_wire()))

    is_whole(Victim(target).run(put))


@pytest.mark.slow
def test_a_forged_stop_mark_only_delays(target: Target) -> None:
    is_whole(Victim(target).run(lambda store, job: store.hset(f"{job}:job", "stop", "2")))


TASK: Final = "0123abcd-0-1"
ASKED: Final = TaskArguments("0123abcd", "0", 0, FINGERPRINT)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "zz",
        "00" * 23,
        theirs.sign(Sealed.TASK, "0123abcd", "0", ASKED.signed_part(TASK)),
        ours.sign(Sealed.TASK, "0123abcd", "1", ASKED.signed_part(TASK)),
        ours.sign(Sealed.TASK, "0123abcd", "0", ASKED.signed_part("0123abcd-0-2")),
        ours.sign(Sealed.FRAME, "0123abcd", "0", ASKED.signed_part(TASK)),
        ours.sign(Sealed.TASK, "0123abcd", "0", replace(ASKED, start=1).signed_part(TASK)),
    ],
    ids=range(9),
)
def test_forged_task_is_rejected(target: Target, signature: str | None) -> None:
    args = ASKED.to_args() if signature is None else (*ASKED.to_args(), signature)
    target.receive(Envelope(arguments(*args), id=TASK), "message is rejected")


# --- the workers' words ---------------------------------------------------------------------


LIE = outcome(frame(pack([{"first_name": "E", "last_name": "F"}]), kind=1), count=1, index=3)
FORGED_OUTCOMES: Final[dict[str, Callable[[str], bytes]]] = {
    "unsigned": lambda _: LIE,
    "another secret": lambda job: theirs.seal(Sealed.OUTCOME, job, "3", LIE),
    "another part": lambda job: ours.seal(Sealed.OUTCOME, job, "2", LIE),
    "another job": lambda _: ours.seal(Sealed.OUTCOME, "0123abcd", "3", LIE),
    "a frame": lambda job: ours.seal(Sealed.FRAME, job, "3", LIE),
    "empty": lambda _: b"",
}


# Whether one is told of or found when somebody looks, the check is the same; looking takes seconds.
TOLD: Final = [(name, True) for name in FORGED_OUTCOMES]
FOUND: Final = [("unsigned", False), ("another part", False)]


@pytest.mark.parametrize(
    ("forgery", "is_told"),
    [TOLD[0], *(pytest.param(*each, marks=pytest.mark.slow) for each in (*TOLD[1:], *FOUND))],
)
def test_a_forged_outcome_is_not_delivered(
    target: Target, forgery: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    forge = FORGED_OUTCOMES[forgery]

    def settle(store: Any, job: str) -> None:
        data = forge(id_of(job))
        store.hdel(f"{job}:in", "3")
        store.hset(f"{job}:out", "3", data)
        if is_told:
            store.rpush(f"{job}:done", f"3 {len(data)}")

    is_whole(Victim(target, LONG_S).run(settle))
    assert "an outcome is rejected" in caplog.text.replace("a outcome", "an outcome")


def test_an_outcome_that_is_forged_again_and_again_ends_the_job(target: Target) -> None:
    with target.fleet.store.pipeline() as pipe:

        def settle(store: Any, job: str) -> None:
            def is_over() -> bool:
                if store.exists(f"{job}:job"):
                    pipe.hdel(f"{job}:in", "3").hset(f"{job}:out", "3", b"forged")
                    pipe.rpush(f"{job}:done", "3 6").execute()
                    return False
                return True

            wait_until(is_over, "the job ends", 8)

        error = Victim(target).run(settle).failed()
    assert isinstance(error, SignatureError)
    assert "chunk 3 of Person" in str(error)
    assert "its outcome: it is not signed" in str(error)


def test_forged_notices_are_ignored(target: Target) -> None:
    def put(store: Any, job: str) -> None:
        task = f"{id_of(job)}-3-1"
        crashes = [f"!3 {task}{number} signal 9".encode() for number in range(9)]
        notices = [
            *crashes,
            *(theirs.seal(Sealed.NOTICE, id_of(job), "", death) for death in crashes),
            *(ours.seal(Sealed.NOTICE, "0123abcd", "", death) for death in crashes),
            f"?3 {task} some-worker other-code".encode(),
            f"~3 {task} it is forged".encode(),
        ]
        store.rpush(f"{job}:done", *notices)

    is_whole(Victim(target).run(put))


def test_repeated_signed_crash_notice_counts_once(target: Target) -> None:
    """A crash that is reported repeatedly does not become the record's fault."""

    def put(store: Any, job: str) -> None:
        told = f"!3 {id_of(job)}-3-1 signal 9 (SIGKILL)".encode()
        store.rpush(f"{job}:done", *[ours.seal(Sealed.NOTICE, id_of(job), "", told)] * 9)

    is_whole(Victim(target).run(put))


def test_forged_claim_is_ignored(target: Target) -> None:
    def put(store: Any, job: str) -> None:
        claimant = f"{id_of(job)}-3-1 gone@host:1-c0de".encode()
        forged = (claimant, theirs.seal(Sealed.CLAIM, id_of(job), "3", claimant))

        def is_settled() -> bool:
            victim.go_on()
            if store.hexists(f"{job}:in", "3"):
                for value in forged:
                    store.hset(f"{job}:claims", "3", b"1 " + value)
                return False
            return True

        wait_until(is_settled, "the chunk is settled all the same")

    victim = Victim(target)
    is_whole(victim.run(put))


@pytest.mark.slow
def test_forged_heartbeats_make_no_worker(target: Target) -> None:
    told = {"slots": 500, "running": [], "every_s": 1.0, "seen": time.time() + 1e6}

    def put(store: Any, _: str) -> None:
        for name, signer in {"unsigned": Signer(), "theirs": theirs}.items():
            sealed = signer.seal(Sealed.HEARTBEAT, QUEUE, name, pack(told))
            store.hset(f"pt:workers:{QUEUE}", name, b"9999999999 " + sealed)
        moved = ours.seal(Sealed.HEARTBEAT, QUEUE, "somebody else", pack(told))
        store.hset(f"pt:workers:{QUEUE}", "moved", b"9999999999 " + moved)

    is_whole(Victim(target, LONG_S).run(put))
    assert target.migrator._jobs.session is not None
    job_store = target.migrator._jobs.session.store
    assert {worker.slots for worker in job_store.workers()} == {1}


def test_old_heartbeat_does_not_revive_a_worker(target: Target) -> None:
    assert target.migrator._jobs.session is not None
    job_store = target.migrator._jobs.session.store
    told = {"slots": 1, "running": [], "every_s": 1.0, "seen": time.time() - 60}
    sealed = ours.seal(Sealed.HEARTBEAT, QUEUE, "dead", pack(told))
    target.fleet.store.hset(f"pt:workers:{QUEUE}", "dead", f"{time.time()} ".encode() + sealed)
    assert "dead" not in {worker.name for worker in job_store.workers()}


def test_remote_shutdown_is_ignored(target: Target) -> None:
    with create_app(target.fleet.settings) as app, app.connection_for_write() as connection:
        box = Mailbox(app.conf.control_exchange, type="fanout", connection=connection)
        box.abcast("shutdown", {})
    target.works()
    assert is_alive(target.worker.pid)


# --- ends that differ -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "producers"),
    [
        pytest.param(
            SECRET,
            {
                "": "it is signed, and PYRMUTE_TASKS_SECRET is not set here",
                OTHER: "it is signed with another secret",
            },
            marks=pytest.mark.slow,
        ),
        ("", {SECRET: "it is not signed"}),
    ],
    ids=["the worker has one", "the worker has none"],
)
def test_differing_secrets_are_reported(worker: str, producers: dict[str, str]) -> None:
    with private_fleet("tests.people:manager", secret=worker, worker_wait_s=1.0) as fleet:
        started = fleet.start_worker()
        for producer, why in producers.items():
            told = started.log.count("a message is rejected")
            settings = replace(fleet.settings, secret=producer)
            with Migrator(manager, settings=settings) as migrator:
                began = time.monotonic()
                with pytest.raises(NoWorkersError, match="the same PYRMUTE_TASKS_SECRET") as caught:
                    migrator.migrate_batch_data([person(0)], *HOP)
                assert time.monotonic() - began < 5
                assert why in str(caught.value)
            wait_until(
                lambda: started.log.count("a message is rejected") > told,  # noqa: B023  # at once
                "the worker tells",
                5,
            )


@pytest.mark.slow
def test_a_worker_with_another_secret_does_not_empty_the_queue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It rejects at once, so without a pause it would get most chunks."""
    records = [{"name": f"sleep:0.05 {index}", "age": 1} for index in range(40)]
    with private_fleet("tests.people:manager", secret=SECRET) as fleet:
        fleet.start_worker()
        settings = replace(fleet.settings, secret=OTHER)
        other = fleet.start_worker(name="other", settings=settings)
        with Migrator(manager, settings=fleet.settings) as migrator:
            data = migrator.migrate_batch_data(records, *HOP, chunk_size=1)
        assert "it is signed with another secret" in other.log
    assert data == manager.migrate_batch_data(records, *HOP)
    assert caplog.text.count("chunks are sent again") <= 10  # some forty without the pause


def test_a_secret_is_changed_while_jobs_run() -> None:
    with private_fleet("tests.people:manager", secret=f"{OTHER},{SECRET}") as fleet:
        fleet.start_worker()
        settings = replace(fleet.settings, secret=f"{SECRET},{OTHER}")
        with Migrator(manager, settings=settings) as migrator:
            data = migrator.migrate_batch_data(RECORDS, *HOP)
    assert data == manager.migrate_batch_data(RECORDS, *HOP)


def test_a_job_through_rabbitmq_is_signed(rabbitmq: RabbitMQ) -> None:
    with (
        rabbitmq_fleet(rabbitmq, 1, secret=SECRET) as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        data = migrator.migrate_batch_data(RECORDS, *HOP, chunk_size=2)
    assert data == manager.migrate_batch_data(RECORDS, *HOP)
