"""A job's spec, which is sent to the workers."""

import enum
from dataclasses import dataclass, field

from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.plans.retry import Retry
from pyrmute_tasks.wire.frames import Compression, FrameKind, pack, unpack

__all__ = ["JobSpec", "OnCodeMismatch"]


class OnCodeMismatch(enum.StrEnum):
    """The action of a worker whose migrations differ from the producer's."""

    REJECT = "reject"  # decline, so that the chunk goes to another worker
    WARN = "warn"  # log it once a job and migrate


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The properties that all chunks of a job share.

    Attributes:
        id: The job's id; of a submitted one with its epoch, ``2908961f.3``.
        name: The model's name.
        from_version: Version of the input records.
        to_version: Version of the outputs.
        kind: How records are sent. Lines come back validated, objects as migrated data.
        fingerprint: Fingerprint of the producer's plan.
        count_hooks: Count for the producer's `MetricsHook`.
        on_code_mismatch: The action of workers with other migrations.
        retry: Which exceptions of steps to retry; None for none.
        compression: How workers compress outputs.
        skips: Whether workers go on behind a record that fails.
        total: Where its source ends, in records or, of files, bytes; None if unknown. It stays
            with the producer.
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
    skips: bool = False
    total: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        job = self.id.partition(".")[0]
        return f"{self.name} {self.from_version}→{self.to_version} · job {job}"

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
                self.skips,
            ]
        )

    @classmethod
    def from_wire(cls, data: bytes) -> "JobSpec":
        """Decode a spec from `to_wire`.

        Raises:
            FrameError: If it is something else.
        """
        try:
            # A worker of another release declines a job whose spec has more or fewer parts.
            job_id, name, first, last, kind, fingerprint, count, on_mismatch, retry, how, skips = (
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
                OnCodeMismatch(on_mismatch),
                Retry.from_wire(retry) if retry is not None else None,
                Compression(how),
                skips,
            )
        except (TypeError, ValueError) as error:
            raise FrameError(f"a job's spec is damaged ({type(error).__name__})") from None
