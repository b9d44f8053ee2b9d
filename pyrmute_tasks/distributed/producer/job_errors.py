"""The errors of jobs that a fleet cannot run: the observation, and what to do about it."""

from collections.abc import Mapping
from typing import Final

from pyrmute_tasks.distributed.broker_profile import broker_profile
from pyrmute_tasks.distributed.producer.liveness import (
    BrokerAway,
    NoWorkers,
    OtherCode,
    Stall,
    Verdict,
)
from pyrmute_tasks.distributed.protocol import storage_trouble
from pyrmute_tasks.engine.job_spec import JobSpec
from pyrmute_tasks.errors import (
    BrokerUnavailableError,
    CodeMismatchError,
    FleetError,
    JobLostError,
    NoWorkersError,
    StalledError,
    StorageUnreachableError,
)
from pyrmute_tasks.logs import hide_password
from pyrmute_tasks.settings import Settings

__all__ = ["JobErrors", "declining"]

_START_ONE: Final = "start one with: pyrmute-tasks worker --manager … --broker … --store …"


def declining(codes: Mapping[str, str]) -> str:
    """Return why workers take nothing, in a few words.

    Args:
        codes: What the workers hold that decline, or what they cannot reach, by their names.
    """
    away = {worker: why for worker, held in codes.items() if (why := storage_trouble(held))}
    other = len(codes) - len(away)
    told = []
    if other:
        told.append(
            "1 worker holds other code" if other == 1 else f"{other:,} workers hold other code"
        )
    if away:
        worker, why = next(iter(away.items()))
        more = f" (and {len(away) - 1:,} more)" if len(away) > 1 else ""
        told.append(f"{worker}{more}: {why}")
    return "; ".join(told)


class JobErrors:
    """Builds the errors of a job that its fleet cannot run.

    Args:
        spec: The job.
        settings: Its deadlines, and where its fleet is.
    """

    def __init__(self, spec: JobSpec, settings: Settings) -> None:
        self._spec = spec
        self._settings = settings

    def lost_job(self) -> JobLostError:
        """Return the error of a job that the store no longer knows."""
        return JobLostError(
            f"the store at {hide_password(self._settings.redis_store_url)} no longer knows job "
            f"{self._spec.id}: it was emptied or restarted without its data, or ran out of "
            "memory; what was delivered is complete up to here. Run the job again"
        )

    def given_up(self, verdict: Verdict, rejected: str, held: Mapping[str, str]) -> FleetError:
        """Return the error of a job that is given up.

        Args:
            verdict: The judgement.
            rejected: Why workers that are there do not count; empty if all do.
            held: The code of the workers that declined, by their names.
        """
        match verdict:
            case NoWorkers(idle):
                return self._no_workers(idle, rejected)
            case OtherCode(patience_s):
                return self._other_code(patience_s, held)
            case BrokerAway():
                return BrokerUnavailableError(
                    f"the broker at {self._broker_url} has been out of reach for "
                    f"{self._settings.outage_s:.0f} s"
                )
            case Stall() as stall:
                return self._stalled(stall)

    def _no_workers(self, idle: int, rejected: str) -> NoWorkersError:
        there = (
            f" ({idle} are there and take none from it: they are leaving, or somebody sent "
            "cancel_consumer; add_consumer or a restart mends that)"
        )
        return NoWorkersError(
            f"no worker answers on queue '{self._settings.queue}' of "
            f"{self._broker_url}{there if idle else ''}; " + (rejected or _START_ONE)
        )

    def _other_code(self, patience_s: float, held: Mapping[str, str]) -> FleetError:
        if any(map(storage_trouble, held.values())):
            return self._unreachable(patience_s, held)
        codes = "; ".join(f"{worker}: {code}" for worker, code in held.items())
        return CodeMismatchError(
            f"no worker took a chunk of {self._spec} within {patience_s:.0f} s: "
            f"their migrations differ from this producer's ({self._spec.fingerprint}). They hold: "
            f"{codes}. Deploy the same code to workers and producers"
        )

    def _unreachable(self, patience_s: float, held: Mapping[str, str]) -> StorageUnreachableError:
        reasons = "; ".join(
            f"{worker}: {storage_trouble(why) or f'it holds other code, {why}'}"
            for worker, why in held.items()
        )
        return StorageUnreachableError(
            f"no worker took a range of {self._spec} within {patience_s:.0f} s: {reasons}. Start "
            "workers with --root DIR for the folders of source and target, or run with "
            "--by-reference never"
        )

    def _stalled(self, stall: Stall) -> StalledError:
        last = f"{stall.last} {stall.ago_s:.0f} s ago" if stall.last else "nothing since it began"
        other = f", {stall.declined} more hold other code" if stall.declined else ""
        return StalledError(
            f"no chunk of {self._spec} has moved for {self._settings.stall_s:.0f} s although "
            f"workers are idle. Seen: idle workers: {stall.workers} with {stall.free_slots} free "
            f"slots{other}; "
            f"{stall.waiting} tasks in queue '{self._settings.queue}' of {self._broker_url}; "
            f"{stall.unclaimed} chunks wait, {stall.claimed} are claimed; last movement: {last}. "
            f"Check: {self._advice(stall)}"
        )

    def _advice(self, stall: Stall) -> str:
        if stall.repeats:
            return (
                f"chunks were begun again {stall.repeats} times and came to no outcome: "
                + broker_profile(self._settings).advice_on_repeats
            )
        if not stall.unclaimed:
            return (
                f"chunks have been running for longer than time_limit_s "
                f"({self._settings.time_limit_s:g} s): do the workers have another one?"
            )
        if stall.waiting:
            return (
                "do the workers listen to the same broker, virtual host or database as this "
                "producer (their PYRMUTE_TASKS_BROKER_URL)? Did somebody cancel their consumers?"
            )
        return (
            "something takes the tasks and runs none: do workers of another fleet, with another "
            f"store, listen to queue '{self._settings.queue}' of this broker?"
        )

    @property
    def _broker_url(self) -> str:
        return hide_password(self._settings.broker_url)
