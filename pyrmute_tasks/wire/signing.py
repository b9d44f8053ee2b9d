"""Signatures of messages between producers and workers.

With a secret, everything that travels through broker and store carries a keyed hash. It covers
the data and what the data is: its kind, its job and its part. So what is signed can be neither
altered nor passed off as something else, another job's or another part's. Without a secret
nothing is signed, and what is signed is refused: both ends notice that they differ.

A sealed value is ``0xC1 "S1"``, four bytes that say which secret, 16 bytes of HMAC-SHA256, and
the data. No frame, spec or notice begins with that byte.
"""

import enum
import hmac
from collections.abc import Iterable
from typing import Final

from pyrmute_tasks.errors import ConfigurationError, SignatureError

__all__ = ["SECRET_VARIABLE", "Sealed", "Signer", "split_secrets"]

SECRET_VARIABLE: Final = "PYRMUTE_TASKS_SECRET"  # noqa: S105  # a name, no secret

_MAGIC: Final = b"\xc1S1"
_ID_BYTES: Final = 4
_HASH_BYTES: Final = 16
_LEAST_CHARACTERS: Final = 16
_SEAL_BYTES: Final = len(_MAGIC) + _ID_BYTES + _HASH_BYTES
_PURPOSE: Final = b"pyrmute-tasks 1 "  # so that no other use of the secret gives the same hash


class Sealed(enum.Enum):
    """The kind of signed data; no kind passes for another."""

    SPEC = b"spec"
    FRAME = b"frame"
    CLAIM = b"claim"
    OUTCOME = b"outcome"
    NOTICE = b"notice"
    HEARTBEAT = b"heartbeat"
    TASK = b"task"


def split_secrets(text: str) -> tuple[str, ...]:
    """Return the secrets in a comma separated list: the first one signs, all of them verify.

    An empty text is none. A blank one is an error, as a file with nothing but a newline: it must
    not turn signing off.

    Raises:
        ConfigurationError: If one is too short to be a secret; it is not quoted.
    """
    secrets = tuple(secret.strip() for secret in text.split(",")) if text else ()
    if any(len(secret) < _LEAST_CHARACTERS for secret in secrets):
        raise ConfigurationError(
            f"each secret must have {_LEAST_CHARACTERS} characters or more: make one with "
            "openssl rand -hex 32"
        )
    return secrets


class Signer:
    """Seals data, and opens what others have sealed.

    Args:
        secrets: The first one signs, all of them verify. With none nothing is signed.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        keys = [_derived(secret.encode(), b"key") for secret in secrets]
        self._hashes = {_id_of(key): hmac.new(key, _PURPOSE, "sha256") for key in keys}
        self._own = _id_of(keys[0]) if keys else b""

    @property
    def is_on(self) -> bool:
        """Whether there is a secret."""
        return bool(self._own)

    def seal(self, kind: Sealed, job: str, part: str, data: bytes) -> bytes:
        """Return `data` behind its signature; unchanged if there is no secret.

        Args:
            kind: The kind of the data.
            job: The job's id, or the queue for what belongs to no job.
            part: The part's key, or whose it is.
            data: The signed data.
        """
        if not self._own:
            return data
        return b"".join((_MAGIC, self._own, self._hash(self._own, kind, job, part, data), data))

    def open(self, kind: Sealed, job: str, part: str, sealed: bytes) -> bytes:
        """Return the data that `seal` was given, if it was sealed for this use.

        Raises:
            SignatureError: If it was not, or is signed and there is no secret here; says why.
        """
        return bytes(self.view(kind, job, part, sealed))

    def view(self, kind: Sealed, job: str, part: str, sealed: bytes) -> bytes | memoryview:
        """Return the data like `open`, without copying it, which takes as long as hashing it."""
        is_signed = sealed.startswith(_MAGIC)
        if not self._own:
            if is_signed:
                raise SignatureError(f"it is signed, and {SECRET_VARIABLE} is not set here")
            return sealed
        if not is_signed or len(sealed) < _SEAL_BYTES:
            raise SignatureError("it is not signed")
        view = memoryview(sealed)
        key_id = sealed[len(_MAGIC) : len(_MAGIC) + _ID_BYTES]
        if key_id not in self._hashes:
            raise SignatureError("it is signed with another secret")
        found = sealed[len(_MAGIC) + _ID_BYTES : _SEAL_BYTES]
        data = view[_SEAL_BYTES:]
        if not hmac.compare_digest(found, self._hash(key_id, kind, job, part, data)):
            raise SignatureError("its signature is wrong: it was altered, or belongs elsewhere")
        return data

    def sign(self, kind: Sealed, job: str, part: str, data: bytes) -> str:
        """Return a detached signature of `data`, as text; empty without a secret."""
        return self.seal(kind, job, part, data)[: _SEAL_BYTES if self._own else 0].hex()

    def check(self, kind: Sealed, job: str, part: str, data: bytes, signature: str) -> None:
        """Check a signature made by `sign`.

        Raises:
            SignatureError: As `open`.
        """
        try:
            seal = bytes.fromhex(signature)
        except ValueError:
            raise SignatureError("it is not signed") from None
        self.open(kind, job, part, seal + data)

    def _hash(
        self, key_id: bytes, kind: Sealed, job: str, part: str, data: bytes | memoryview
    ) -> bytes:
        made = self._hashes[key_id].copy()
        for field in (kind.value, job.encode(), part.encode()):
            made.update(len(field).to_bytes(4, "big") + field)
        made.update(data)
        return made.digest()[:_HASH_BYTES]


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + purpose, "sha256")


def _id_of(key: bytes) -> bytes:
    return _derived(key, b"id")[:_ID_BYTES]
