"""Hostile messages on the broker and in the store: rejected, logged, survived."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import ormsgpack
import pytest

from pyrmute_tasks import Migrator
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.engine.job_tally import new_job_id
from pyrmute_tasks.errors import PyrmuteTasksError
from pyrmute_tasks.wire.frames import MAX_FRAME_BYTES, FrameKind, encode_frame, pack
from pyrmute_tasks.wire.objects import Kind
from tests.conftest import wait_until
from tests.fleets import (
    QUEUE,
    Fleet,
    Worker,
    private_fleet,
)
from tests.integration.hostile import (
    MIB,
    Envelope,
    PickleBomb,
    arguments,
    compressed,
    frame,
    nested,
)
from tests.people import manager, person

HOP = ("Person", "1.0.0", "3.0.0")
FINGERPRINT = manager.plan(*HOP).fingerprint
LINE = b'{"name":"A B","age":1}\n'
RECORDS = [person(index) for index in range(12)]
EXPECTED = manager.migrate_batch_data(RECORDS, *HOP)
JOB: Final = "0123abcd"  # nobody's


def instance(name: str) -> bytes:
    return ormsgpack.packb([ormsgpack.Ext(Kind.DATACLASS, pack([name, 0, None, "true"]))])


class Target:
    """A worker under attack."""

    def __init__(self, fleet: Fleet, migrator: Migrator) -> None:
        self.fleet = fleet
        self.migrator = migrator
        self.worker: Worker = fleet.start_worker("--loglevel", "INFO")

    def heal(self) -> None:
        """Replace a worker that did not survive, so that one failure stays one."""
        if not self.worker.is_healthy() or not self._drains():
            self.worker.close()
            self.fleet.broker.delete(QUEUE, "unacked", "unacked_index")
            self.worker = self.fleet.start_worker("--loglevel", "INFO")

    def _drains(self) -> bool:
        try:
            wait_until(self.fleet.is_drained, "the queue is empty", 2)
        except AssertionError:
            return False
        return True

    def receive(self, envelope: Envelope, told: str) -> None:
        """Deliver a message and wait until the worker has logged and handled it."""
        before = len(self.worker.log)

        def is_told() -> bool:
            assert self.worker.is_healthy(), self.worker.log[before:]
            return re.search(told, self.worker.log[before:]) is not None

        self.fleet.broker.lpush(QUEUE, envelope.dumps())
        wait_until(is_told, f"the worker tells of {told!r}: {self.worker.log[before:]}", 5)
        # Not sent back to the queue either, where it would come from again and again.
        wait_until(self.fleet.is_drained, "the message is gone", 3)

    def put_job(self, data: bytes, *, spec: bytes | None = None, stop: int | None = None) -> str:
        job = new_job_id()
        kind = FrameKind(data[4]) if data[4:5] in {b"\x01", b"\x02"} else FrameKind.LINES
        sound = JobSpec(job, *HOP, kind, FINGERPRINT).to_wire()
        self.fleet.store.hset(f"pt:{{{job}}}:job", "spec", sound if spec is None else spec)
        if stop is not None:
            self.fleet.store.hset(f"pt:{{{job}}}:job", "stop", stop)
        self.fleet.store.hset(f"pt:{{{job}}}:in", "0", data)
        return job

    def receive_frame(self, data: bytes, told: str) -> None:
        job = self.put_job(data)
        self.receive(Envelope(arguments(job, "0", 0, FINGERPRINT)), told)
        # Its collector is told as well.
        (notice,) = self.fleet.store.lrange(f"pt:{{{job}}}:done", 0, -1)
        assert notice.startswith(b"0 ")

    def peak_mib(self, pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) // 1024

    def forget_peaks(self) -> None:
        for pid in self.worker.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def works(self) -> None:
        assert self.worker.is_healthy(), self.worker.log
        assert self.migrator.migrate_batch_data(RECORDS, *HOP, chunk_size=5) == EXPECTED
        assert self.worker.is_healthy(), self.worker.log


@pytest.fixture(scope="module")
def the_target() -> Iterator[Target]:
    with (
        private_fleet("tests.people:manager") as fleet,
        Migrator(manager, settings=fleet.settings) as migrator,
    ):
        yield Target(fleet, migrator)


@pytest.fixture
def target(the_target: Target) -> Iterator[Target]:
    the_target.heal()
    yield the_target
    the_target.works()
    the_target.fleet.store.flushall()


# --- bodies -------------------------------------------------------------------------------

REFUSED = "[Rr]efus|reject|[Ii]nvalid task|Can't decode|unknown"


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/x-python-serialize", "binary"),
        ("pickle", "binary"),
        ("application/json", "utf-8"),
        ("application/data", "binary"),
        (None, None),
    ],
)
def test_a_pickle_is_not_opened(
    target: Target, tmp_path: Path, content_type: object, encoding: object
) -> None:
    made = tmp_path / "made"
    body = PickleBomb(made).dumps()
    target.receive(Envelope(body, content_type=content_type, encoding=encoding), REFUSED)
    assert not made.exists()


def test_unsupported_yaml_is_rejected(target: Target, tmp_path: Path) -> None:
    made = tmp_path / "made"
    body = f"!!python/object/apply:os.system ['touch {made}']".encode()
    target.receive(Envelope(body, content_type="application/x-yaml"), REFUSED)
    assert not made.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{{ no JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b'[["0123abcd", "0", 0, {"__type__": "os.system", "__value__": "x"}], {}, {}]',
        5,
        None,
        {},
        [],
        [[], {}],
        [5, {}, {}],
        [[], 5, {}],
        [[JOB, "0", 0, FINGERPRINT], {}, 5],
    ],
    ids=lambda body: repr(body)[:20],
)
def test_body_that_is_not_a_call_is_rejected(target: Target, body: object) -> None:
    target.receive(Envelope(body), REFUSED)


@pytest.mark.parametrize(
    "embed",
    [
        {"callbacks": [5]},
        {"callbacks": [{"task": "celery.backend_cleanup", "args": [], "kwargs": {}}]},
        {"errbacks": ["x"]},
        {"chain": 5},
        {"chain": [{"task": "celery.backend_cleanup", "args": [], "kwargs": {}}]},
        {"chord": "x"},
    ],
    ids=repr,
)
def test_a_message_starts_no_other_task(target: Target, embed: object) -> None:
    body = arguments(JOB, "0", 0, FINGERPRINT, embed=embed)
    target.receive(Envelope(body), REFUSED)


@pytest.mark.parametrize(
    "headers",
    [
        {"id": None},
        {"id": []},
        {"id": 5},
        {"id": "x\n[forged: log] line"},
        {"id": "9" * 10_000},
        {"task": []},
        {"task": {"a": 1}},
        {"eta": []},
        {"eta": "2999-01-01T00:00:00"},
        {"expires": {}},
        {"timelimit": 5},
        {"timelimit": [0.001, 0.001]},
        {"stamped_headers": 5},
        {"compression": "none-such"},
    ],
    ids=lambda headers: repr(headers)[:30],
)
def test_headers_that_no_producer_writes_are_rejected(
    target: Target, headers: dict[str, Any]
) -> None:
    target.receive(Envelope(arguments(JOB, "0", 0, FINGERPRINT), **headers), REFUSED)
    assert not re.search(r"^\[forged", target.worker.log, re.M)


@pytest.mark.parametrize("task", ["os.system", "pyrmute_tasks.cli.main.main", ""])
def test_an_unknown_task_is_moved_unread(target: Target, task: str) -> None:
    target.receive(Envelope(arguments(), task=task), "of another application was moved off")


# --- arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        (),
        (JOB,),
        (JOB, "0", 0),
        (JOB, "0", 0, FINGERPRINT, "more"),
        (5, "0", 0, FINGERPRINT),
        (None, "0", 0, FINGERPRINT),
        ([JOB], "0", 0, FINGERPRINT),
        ("../x", "0", 0, FINGERPRINT),
        ("", "0", 0, FINGERPRINT),
        ("{0123abcd}", "0", 0, FINGERPRINT),
        (JOB, 0, 0, FINGERPRINT),
        (JOB, "../x", 0, FINGERPRINT),
        (JOB, "", 0, FINGERPRINT),
        (JOB, "9" * 10_000, 0, FINGERPRINT),
        (JOB, "-1", 0, FINGERPRINT),
        (JOB, "0:0+", 0, FINGERPRINT),
        (JOB, "0\n", 0, FINGERPRINT),
        (JOB, "0", -1, FINGERPRINT),
        (JOB, "0", "0", FINGERPRINT),
        (JOB, "0", 0.5, FINGERPRINT),
        (JOB, "0", True, FINGERPRINT),
        (JOB, "0", 10**400, FINGERPRINT),
        (JOB, "0", 0, 5),
        (JOB, "0", 0, "x\n[forged: log] line"),
    ],
    ids=lambda args: repr(args)[:40],
)
def test_arguments_that_no_producer_writes_are_rejected(
    target: Target, args: tuple[object, ...]
) -> None:
    target.receive(Envelope(arguments(*args)), "message is rejected|[Ii]nvalid|TypeError")


def test_named_arguments_are_rejected(target: Target) -> None:
    body = arguments(JOB, "0", 0, FINGERPRINT, kwargs={"task": 1})
    target.receive(Envelope(body), "message is rejected|[Ii]nvalid|TypeError")


def test_unicode_digits_are_not_a_part_key(target: Target) -> None:
    """Python's `isdigit` accepts them; the store's scripts do not."""
    job = target.put_job(frame(LINE), stop=2)
    target.receive(Envelope(arguments(job, "\u0663", 0, FINGERPRINT)), "message is rejected")


# --- jobs ---------------------------------------------------------------------------------


def test_unknown_job_is_reported(target: Target) -> None:
    target.receive(Envelope(arguments(JOB, "0", 0, FINGERPRINT)), f"declined.*{JOB}|{JOB}.*gone")


def test_task_with_another_fingerprint_is_rejected(target: Target) -> None:
    job = target.put_job(frame(LINE))
    target.receive(Envelope(arguments(job, "0", 0, "another")), "message is rejected")
    assert target.fleet.store.exists(f"pt:{{{job}}}:done") == 0


def test_a_foreign_message_does_not_make_a_worker_decline_a_job(target: Target) -> None:
    spec = JobSpec(JOB, *HOP, FrameKind.LINES, "another").to_wire()
    job = target.put_job(frame(LINE), spec=spec)
    target.receive(Envelope(arguments(job, "0", 0, FINGERPRINT)), "message is rejected")


@pytest.mark.parametrize(
    "spec",
    [
        b"",
        b"garbage",
        pack(5),
        pack({}),
        pack([1, 2, 3]),
        pack([1, 2, 3, 4, 1, 6, 7, "reject", None]),
        pack([JOB, [], {}, None, 1, FINGERPRINT, True, "reject", None]),
        pack([JOB, *HOP, 2, FINGERPRINT, True, "reject", [5, "x", None, []]]),
        pack([JOB, *HOP, 99, FINGERPRINT, True, "reject", None]),
        pack([JOB, *HOP, 2, FINGERPRINT, True, "perhaps", None]),
        pack([JOB, "Person", "evil", "3.0.0", 2, FINGERPRINT, True, "reject", None]),
    ],
    ids=lambda spec: repr(spec)[:30],
)
def test_task_of_a_job_with_a_garbled_spec_is_rejected(target: Target, spec: bytes) -> None:
    job = target.put_job(frame(LINE), spec=spec)
    envelope = Envelope(arguments(job, "0", 0, FINGERPRINT))
    target.receive(envelope, "a chunk cannot be run|message is rejected|declined")


@pytest.mark.parametrize("part", ["job", "in", "claims", "done", "out"])
def test_keys_of_another_type_are_logged_once(target: Target, part: str) -> None:
    job = target.put_job(frame(LINE))
    target.fleet.store.delete(f"pt:{{{job}}}:{part}")
    target.fleet.store.set(f"pt:{{{job}}}:{part}", "no hash, no list")
    before = target.worker.log.count("ResponseError")
    envelope = Envelope(arguments(job, "0", 0, FINGERPRINT))
    target.receive(envelope, "ResponseError|message is rejected")
    assert target.worker.log.count("ResponseError") <= before + 1


# --- frames -------------------------------------------------------------------------------

CANNOT = "a chunk cannot be run"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "shorter than its header"),
        (frame(LINE)[:10], "shorter than its header"),
        (frame(LINE)[:-5], "announces"),
        (frame(LINE, raw_size=1000), "announces"),
        (frame(LINE, raw_size=3), "announces"),
        (frame(LINE, raw_size=MAX_FRAME_BYTES + 1), "the limit is"),
        (frame(LINE, raw_size=2**64 - 1), "the limit is"),
        (frame(LINE, magic=b"XYZ"), "not a frame"),
        (frame(LINE, version=1), "frame version 1"),
        (frame(LINE, kind=9), "unknown kind"),
        (frame(LINE, compression=9), "unknown kind or compression"),
        (frame(b"no zstd", compression=1), "cannot be decompressed"),
        (
            frame(compressed(MIB)[:20], compression=1, raw_size=MIB),
            "announces|decompressed",
        ),
        (frame(b"\xc1\xc1", kind=FrameKind.OBJECTS), "cannot be decoded"),
        (frame(b"\x05", kind=FrameKind.OBJECTS), "does not hold the records"),
        (
            frame(b"\x93\x80\x80\x80", kind=FrameKind.OBJECTS, count=2),
            "does not hold the records",
        ),
        (frame(instance("no_such_module:Kind"), kind=FrameKind.OBJECTS), "is not loaded"),
        (frame(instance("subprocess:Popen"), kind=FrameKind.OBJECTS), "is of another kind"),
        (frame(LINE * 3, count=2), "does not hold the records"),
        (frame(LINE, count=2**32 - 1), "does not hold the records"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else value,
)
def test_frame_with_a_false_header_is_refused(target: Target, data: bytes, told: str) -> None:
    target.receive_frame(data, f"{CANNOT}.*({told})")


def test_values_that_would_overflow_the_stack_are_refused(target: Target) -> None:
    payload = nested(levels=300, arrays=1000)
    target.receive_frame(frame(payload, kind=FrameKind.OBJECTS), CANNOT)


@pytest.mark.parametrize(
    ("expands_to", "claims", "bound_mib"),
    [
        (2048 * MIB, 100, 32),
        (2048 * MIB, 2048 * MIB, 32),
        (2048 * MIB, MAX_FRAME_BYTES, MAX_FRAME_BYTES // MIB + 64),
    ],
    ids=["claims less", "claims all", "claims the limit"],
)
def test_decompression_bomb_is_not_expanded(
    target: Target, expands_to: int, claims: int, bound_mib: int
) -> None:
    data = frame(compressed(expands_to), compression=1, raw_size=claims)
    assert len(data) < MIB
    target.forget_peaks()
    before = {pid: target.peak_mib(pid) for pid in target.worker.pids}
    target.receive_frame(data, f"{CANNOT}.*(announces|the limit is)")
    assert all(target.peak_mib(pid) - before[pid] <= bound_mib for pid in target.worker.pids)


def test_bomb_of_empty_lines_makes_no_objects(target: Target) -> None:
    """Empty lines: each would be an entry of a list, eight times its size."""
    size = 48 * MIB
    data = frame(compressed(size, b"\n"), compression=1, raw_size=size, count=size)
    target.forget_peaks()
    before = target.peak_mib(target.worker.pids[1])
    job = target.put_job(data)
    target.fleet.broker.lpush(QUEUE, Envelope(arguments(job, "0", 0, FINGERPRINT)).dumps())
    wait_until(lambda: target.fleet.store.llen(f"pt:{{{job}}}:done"), "the chunk is settled")
    assert target.peak_mib(target.worker.pids[1]) - before <= 4 * size // MIB


# --- the collector ------------------------------------------------------------------------


class Victim:
    """A producer whose job's keys are overwritten while it runs."""

    def __init__(self, target: Target, chunk_s: float = 0.1) -> None:
        self._target = target
        self._is_poisoned = target.fleet.directory / f"poisoned-{new_job_id()}"
        wait = f"wait-for:{self._is_poisoned} {chunk_s}"
        self._records = [{"name": f"{wait} {index}", "age": 1} for index in range(4)]
        self.error: BaseException | None = None
        self._outputs: list[Any] = []

    def run(self, poison: Callable[[Any, str], object]) -> "Victim":
        """Run a job whose chunks go on once `poison` has written, with one of them claimed."""
        thread = threading.Thread(target=self._poison, args=(poison,))
        thread.start()
        began = time.monotonic()
        try:
            self._outputs = self._target.migrator.migrate_batch_data(
                self._records, *HOP, chunk_size=1
            )
        except Exception as error:  # which one it is, is what is tested
            self.error = error
        thread.join()
        assert time.monotonic() - began < 10
        return self

    def _poison(self, poison: Callable[[Any, str], object]) -> None:
        store = self._target.fleet.store
        jobs: list[str] = []

        def is_claimed() -> bool:
            jobs[:] = [key.decode().rpartition(":")[0] for key in store.keys("pt:{*}:claims")]
            return bool(jobs) and store.hlen(f"{jobs[0]}:in") == len(self._records)

        try:
            wait_until(is_claimed, "all chunks are sent and one is claimed")
            poison(store, jobs[0])
        finally:
            self._is_poisoned.touch()

    def go_on(self) -> None:
        """Let the chunks go on while `poison` still writes."""
        self._is_poisoned.touch()

    def survived(self) -> None:
        assert self.error is None, repr(self.error)
        assert len(self._outputs) == 4

    def failed(self) -> BaseException:
        assert self.error is not None
        return self.error


LONG_S: Final = 0.4  # of four chunks: longer than it takes to look after workers and claims
EMPTY = encode_frame(FrameKind.OBJECTS, 0, pack([]))
SOUND: Final[dict[str, Any]] = {
    "index": 3,
    "count": 0,
    "failures": [],
    "seconds": 0.1,
    "worker": "w",
    "counts": None,
    "is_final": False,
}
FAILURE: Final[dict[str, Any]] = {
    "index": 3,
    "stage": "step",
    "step": "",
    "error": {
        "type": "builtins:ValueError",
        "message": "x",
        "notes": [],
        "args": ["x"],
        "complete": True,
        "attributes": {},
    },
    "raised_at": "",
    "worker": "",
    "traceback": "",
}


def outcome(outputs: bytes = EMPTY, **changes: object) -> bytes:
    report = pack({**SOUND, **changes})
    return len(report).to_bytes(4, "big") + report + outputs


def failure(**changes: object) -> bytes:
    return outcome(failures=[{**FAILURE, **changes}])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"\xff\xff\xff\xff" + pack(SOUND),
        outcome(b""),
        outcome(EMPTY[:-1]),
        outcome(frame(nested(300, 1000), kind=FrameKind.OBJECTS)),
        outcome(frame(b"\x05", kind=FrameKind.OBJECTS)),
        outcome(frame(b"\x91\x80", kind=FrameKind.OBJECTS, count=1), count=7),
        outcome(index=2),
        outcome(index=99),
        outcome(index="3"),
        outcome(index=[]),
        outcome(count=-1),
        outcome(count="many"),
        outcome(seconds="long"),
        outcome(worker=["w"]),
        outcome(counts=5),
        outcome(counts={"migrations": [], "errors": 5}),
        outcome(failures=5),
        outcome(failures=[{}]),
        outcome(is_final=1),
        failure(index="3"),
        failure(index=99),
        failure(stage="never"),
        failure(error=5),
        failure(error={**FAILURE["error"], "type": 5}),
        failure(error={**FAILURE["error"], "type": "builtins:SystemExit"}),
        failure(error={**FAILURE["error"], "notes": [5]}),
        failure(error={**FAILURE["error"], "args": 5}),
        failure(error={**FAILURE["error"], "attributes": [5]}),
        failure(error={"validation": {"title": "x", "details": [5]}}),
        (len(nested(300, 1000)).to_bytes(4, "big") + nested(300, 1000) + EMPTY),
    ],
    ids=range(32),
)
def test_garbage_outcome_is_reported(target: Target, data: bytes) -> None:
    def settle(store: Any, job: str) -> None:
        """Settle chunk 3, which waits behind slow ones, as a worker would."""
        store.hdel(f"{job}:in", "3")
        store.hset(f"{job}:out", "3", data)
        store.rpush(f"{job}:done", f"3 {len(data)}")

    error = Victim(target).run(settle).failed()  # chunk 3 has no true outcome any more
    if not isinstance(error, PyrmuteTasksError):
        # Forged, and faithfully rebuilt: whoever can write this can make any record fail.
        assert (type(error), str(error)) == (ValueError, "x")


@pytest.mark.parametrize(
    "notices",
    [
        (b"", b"nonsense", b"99", b"-1 5", b"0 5", b"3 x", b"3 -9", b"3 " + b"9" * 99, b"x" * MIB),
        (b"\xff\xfe", b"!\xff", b"?\xff a b c"),
        (b"!", b"! ", b"!99 signal 9"),
        (b"?", b"?0", b"?0 task", b"?0 task worker", b"?99 task worker code"),
    ],
    ids=["settled", "no text", "crashes", "declines"],
)
def test_garbage_notices_are_ignored(target: Target, notices: tuple[bytes, ...]) -> None:
    Victim(target).run(lambda store, job: store.rpush(f"{job}:done", *notices)).survived()


def test_outcomes_of_unknown_parts_are_ignored(target: Target) -> None:
    def put(store: Any, job: str) -> None:
        for field in (b"99", b"../x", b"\xff"):
            store.hset(f"{job}:out", field, b"garbage")
            store.rpush(f"{job}:done", field + b" 7")

    Victim(target, LONG_S).run(put).survived()


CLAIMS = (b"", b"garbage", b"x y z", b"1", b"9" * 400 + b" t w", b"\xff \xff \xff")


def test_garbage_claims_are_ignored(target: Target) -> None:
    def put(store: Any, job: str) -> None:
        for number, claim in enumerate(CLAIMS):
            store.hset(f"{job}:claims", f"{90 + number}", claim)
        store.hset(f"{job}:claims", "3", b"garbage")
        store.hset(f"{job}:claims", b"\xff", b"1 task worker")

    Victim(target, LONG_S).run(put).survived()


BEATS = (
    b"",
    b"garbage",
    b"1.0",
    b"x \x80",
    *(
        b"9999999999 " + told
        for told in (
            pack(5),
            pack({}),
            pack({"slots": "x", "running": [], "every_s": 1.0}),
            pack({"slots": 1, "running": 5, "every_s": 1.0}),
            pack({"slots": 1, "running": [[]], "every_s": 1.0}),
            pack({"slots": 10**30, "running": [], "every_s": 1.0}),
            pack({"slots": -1, "running": [], "every_s": 1.0}),
            pack({"slots": 1, "running": []}),
            pack({"slots": 1, "running": [], "every_s": -1.0}),
            pack({"slots": 1, "running": [], "every_s": float("inf")}),
            pack({"slots": 1, "running": [], "every_s": "x"}),
            nested(300, 1000),
        )
    ),
    b"nan " + pack({"slots": 1, "running": [], "every_s": 1.0}),
)


def test_garbage_heartbeats_are_ignored(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    def put(store: Any, _: str) -> None:
        for number, beat in enumerate(BEATS):
            store.hset(f"pt:workers:{QUEUE}", f"forged-{number}", beat)
        store.hset(f"pt:workers:{QUEUE}", b"\xff", b"9999999999 " + pack({"slots": 1}))

    try:
        Victim(target, LONG_S).run(put).survived()
    finally:
        target.fleet.store.delete(f"pt:workers:{QUEUE}")
    # Once, and not for each of them with every look.
    assert caplog.text.count("a heartbeat cannot be read and is ignored") <= 3


def test_keys_of_another_type_hang_no_job(target: Target) -> None:
    def put(store: Any, job: str) -> None:
        store.delete(f"{job}:done")
        store.set(f"{job}:done", "no list")

    victim = Victim(target).run(put)
    # Whole, if the outcomes are found without their notices before the list is looked at.
    if victim.error is None:
        victim.survived()
    else:
        assert isinstance(victim.error, PyrmuteTasksError)
        assert "the store at" in str(victim.error)
