"""The parts in which chunks are sent, and the decision about one whose process died."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pyrmute_tasks.engine.chunks import Chunk, Outcome
from pyrmute_tasks.wire.frames import Frame

__all__ = ["AfterCrash", "Ignored", "Part", "Resend", "Settled"]

_CRASHES_OF_A_CHUNK: Final = 2  # one death may be the host's fault


@dataclass(slots=True)
class Part:
    """Consecutive records of a chunk that are sent as one task; usually the whole chunk.

    Attributes:
        key: Its name in the store and in its task.
        chunk: The records; its index is that of the chunk it belongs to.
        may_kill: How many processes may die of it before it is halved.
        task: Id of the task that carries it now.
        sends: How often it was sent.
        sent_at: When it was sent last, by the caller's clock.
        order: How many parts were sent before it.
        turn_at: When it was last seen to wait for its turn.
        crashes: How the processes died that ran it.
        gone: The workers that had claimed it and were gone, and did not come back.
        lost_claims: How often it was claimed and came to nothing while the worker lived.
        rejections: How often its input or its outcome had no valid signature.
        backed_up: Sent a second time because it took much longer than others.
    """

    key: str
    chunk: Chunk[bytes]
    may_kill: int = _CRASHES_OF_A_CHUNK
    task: str = ""
    sends: int = 0
    sent_at: float = 0.0
    order: int = 0
    turn_at: float = 0.0
    crashes: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    lost_claims: int = 0
    rejections: int = 0
    backed_up: bool = False


@dataclass(frozen=True, slots=True)
class Resend:
    """Send parts now.

    Attributes:
        parts: The part itself, or its halves.
        replaced: Key of the part that was halved; empty if it is sent as it was.
    """

    parts: tuple[Part, ...]
    replaced: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    """The part is given up: its one record fails.

    Attributes:
        part: Its key; no worker may run it any more.
        outcome: The outcome of its chunk; None while other parts of it are on their way.
    """

    part: str
    outcome: Outcome[Frame] | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Do nothing: the part is no longer under way."""


AfterCrash: TypeAlias = Resend | Settled | Ignored
"""What to do about a part whose process died."""
