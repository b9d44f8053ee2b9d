"""The terms of a submitted job: what its submitter asked for that decides no byte of its output."""

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from pyrmute_tasks.errors import ConfigurationError

__all__ = ["GIVE_UP_S", "Priority", "Terms"]

GIVE_UP_S: Final = 86400.0
"""How long a job is suspended by default before it is given up."""


class Priority(enum.StrEnum):
    """The priority of a job among those of its jobs root."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @classmethod
    def _missing_(cls, value: object) -> "Priority":
        raise ConfigurationError(f"priority must be {', '.join(cls)}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a submitted job.

    Attributes:
        manager: Name of the manager whose migrations it runs; for people, and for `retry`.
        name: What people call the job; empty for none.
        queue: The queue whose workers run it.
        priority: Its priority.
        after: Id of the job that must have succeeded before this one begins; empty for none.
        by_reference: Which way it goes, as for a run: ``auto``, ``always`` or ``never``.
        chunk_size: Records a chunk; None for the default.
        overwrite: Replace a target that exists.
        backup: Keep a target that is replaced.
        hold: Prove the output in place of publishing it.
        retry: Which exceptions of steps to retry, as `Retry.to_wire` has it; None for none.
        on_end: A command that coordinators run when the job has ended, if they were told that they
            may; empty for none.
        give_up_s: How long it may be suspended without a range being settled.
        why: Why it was submitted, for people; empty for no reason.
    """

    manager: str = ""
    name: str = ""
    queue: str = ""
    priority: Priority = Priority.NORMAL
    after: str = ""
    by_reference: str = "auto"
    chunk_size: int | None = None
    overwrite: bool = False
    backup: bool = False
    hold: bool = False
    retry: list[object] | None = None
    on_end: str = ""
    give_up_s: float = GIVE_UP_S
    why: str = ""

    def as_fields(self) -> dict[str, object]:
        """Return the terms as fields of a JSON object."""
        return {**asdict(self), "priority": self.priority.value}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Return the terms from fields.

        Raises:
            ValueError: If the priority is unknown.
            TypeError: If there is another field.
        """
        return cls(**{**fields, "priority": Priority(fields.get("priority", "normal"))})
