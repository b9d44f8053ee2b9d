"""A task's arguments: their order, their shape, and what their signature covers."""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from pyrmute_tasks.wire.signing import Sealed, Signer

__all__ = ["TaskArguments"]

_JOB: Final = re.compile(r"[0-9a-f]{8,32}(\.[0-9]{1,9})?")  # of a submitted job with its epoch
_PART: Final = re.compile(r"[0-9]{1,12}(:[0-9]{1,18}\+[0-9]{1,12})?")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{1,128}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{0,64}")
_MAX_START: Final = 2**63


@dataclass(frozen=True, slots=True)
class TaskArguments:
    """The arguments of the task that runs a part of a job: nothing from a record.

    Attributes:
        job: The job's id.
        part: The part's key.
        start: Index of its first record.
        fingerprint: Of the producer's plan.
        signature: Of the task's id and the other arguments; empty without a secret.
    """

    job: str
    part: str
    start: int
    fingerprint: str
    signature: str = ""

    def to_args(self) -> tuple[str | int, ...]:
        """Return the positional arguments of the task, plain JSON values."""
        args = (self.job, self.part, self.start, self.fingerprint)
        return (*args, self.signature) if self.signature else args

    @classmethod
    def parse(cls, args: object) -> Self:
        """Parse the positional arguments of a task, which are not trusted.

        Raises:
            ValueError: If no producer wrote them; nothing of them is quoted.
        """
        match args:
            case [str() as job, str() as part, int() as start, str() as fingerprint]:
                found = cls(job, part, start, fingerprint)
            case [str() as job, str() as part, int() as start, str() as fingerprint, str() as sign]:
                found = cls(job, part, start, fingerprint, sign)
            case _:
                raise ValueError("not the arguments of a task")
        if not found._is_plausible():
            raise ValueError("not the arguments of a task")
        return found

    def _is_plausible(self) -> bool:
        return (
            _JOB.fullmatch(self.job) is not None
            and _PART.fullmatch(self.part) is not None
            and type(self.start) is int  # no bool
            and 0 <= self.start < _MAX_START
            and _FINGERPRINT.fullmatch(self.fingerprint) is not None
            and _SIGNATURE.fullmatch(self.signature) is not None
        )

    def signed_part(self, task: str) -> bytes:
        """Return the bytes that the signature covers.

        Args:
            task: The task's id.
        """
        fields = (task, self.job, self.part, str(self.start), self.fingerprint)
        return "\0".join(fields).encode()

    def sign(self, task: str, signer: Signer) -> Self:
        """Return the arguments with a signature; unchanged if there is no secret."""
        signature = signer.sign(Sealed.TASK, self.job, self.part, self.signed_part(task))
        return replace(self, signature=signature)

    def check(self, task: str, signer: Signer) -> None:
        """Check the signature.

        Raises:
            SignatureError: If it is missing or wrong; says why.
        """
        signed = self.signed_part(task)
        signer.check(Sealed.TASK, self.job, self.part, signed, self.signature)
