"""What a job is: its spec, which travels to the workers."""

import enum
import secrets
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.wire.frames import Compression, FrameKind, pack, unpack

__all__ = ["JobSpec", "OnCodeMismatch", "new_job_id"]

_ID_BYTES: Final = 4
_UNIQUE_ID_BYTES: Final = 8


def new_job_id(*, unique: bool = False) -> str:
    """Return a fresh job id: eight hex digits, short enough to read aloud.

    Args:
        unique: Return 16 digits. What is signed for one job then never fits another.
    """
    return secrets.token_hex(_UNIQUE_ID_BYTES if unique else _ID_BYTES)


class OnCodeMismatch(enum.StrEnum):
    """What a worker does whose migrations differ from the producer's."""

    REJECT = "reject"  # it declines, and the chunk goes to another worker
    WARN = "warn"  # it says so once a job and migrates


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What every chunk of a job has in common.

    Attributes:
        id: The job's id.
        name: The model's name.
        from_version: Version of the records that go in.
        to_version: Version of those that come out.
        kind: How records travel. Lines come back validated, objects as migrated data.
        fingerprint: The producer's plan, as `MigrationPlan.fingerprint` has it.
        count_hooks: Count for the producer's `MetricsHook`.
        on_code_mismatch: What workers do that hold other migrations.
        retry: Which steps are run again, if any.
        compression: How workers compress outputs.
    """

    id: str
    name: str
    from_version: str
    to_version: str
    kind: FrameKind
    fingerprint: str
    count_hooks: bool = False
    on_code_mismatch: OnCodeMismatch = OnCodeMismatch.REJECT
    retry: Retry | None = None
    compression: Compression = Compression.NONE

    def __str__(self) -> str:
        return f"{self.name} {self.from_version}→{self.to_version} · job {self.id}"

    def to_wire(self) -> bytes:
        """Return the spec as bytes for the store."""
        return pack(
            [
                self.id,
                self.name,
                self.from_version,
                self.to_version,
                int(self.kind),
                self.fingerprint,
                self.count_hooks,
                self.on_code_mismatch.value,
                self.retry.to_wire() if self.retry else None,
                int(self.compression),
            ]
        )

    @classmethod
    def from_wire(cls, data: bytes) -> "JobSpec":
        """Read what `to_wire` wrote.

        Raises:
            FrameError: If it is something else.
        """
        try:
            job_id, name, first, last, kind, fingerprint, count, on_code_mismatch, retry, how = (
                unpack(data)
            )
            return cls(
                job_id,
                name,
                first,
                last,
                FrameKind(kind),
                fingerprint,
                count,
                OnCodeMismatch(on_code_mismatch),
                Retry.from_wire(retry) if retry is not None else None,
                Compression(how),
            )
        except (TypeError, ValueError) as error:
            raise FrameError(f"a job's spec is damaged ({type(error).__name__})") from None
