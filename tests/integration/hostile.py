"""Crafted messages, as anybody with access to a broker or store could write them."""

import base64
import json
import pickle
import struct
from itertools import count
from pathlib import Path
from typing import Any, Final

from backports import zstd

from pyrmute_tasks.wire.frames import FrameKind

__all__ = ["TASK", "Envelope", "PickleBomb", "arguments", "compressed", "frame", "nested"]

TASK: Final = "pyrmute_tasks.migrate_chunk"
MIB: Final = 1 << 20

_numbers = count(1)
_ATTACKER: Final = "a77ac4e5"
_NO_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class PickleBomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._path), "w")

    def dumps(self) -> bytes:
        return pickle.dumps([["0" * 8, "0", 0, self], {}, {}])


class Envelope:
    """A message as kombu writes it to Redis, with every part changeable."""

    def __init__(
        self,
        body: object,
        *,
        content_type: object = "application/json",
        encoding: object = "utf-8",
        properties: dict[str, object] | None = None,
        **headers: object,
    ) -> None:
        self.id = f"{_ATTACKER}-0-{next(_numbers)}"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._parts = {
            "body": base64.b64encode(raw).decode(),
            "content-type": content_type,
            "content-encoding": encoding,
            "headers": self._headers() | headers,
            "properties": self._properties() | (properties or {}),
        }

    def _headers(self) -> dict[str, object]:
        return {
            "lang": "py",
            "task": TASK,
            "id": self.id,
            "root_id": self.id,
            "parent_id": None,
            "group": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "hostile",
            "kwargsrepr": "{}",
            "ignore_result": True,
            "stamped_headers": None,
            "stamps": {},
        }

    def _properties(self) -> dict[str, object]:
        return {
            "correlation_id": self.id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "pyrmute-tasks"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": self.id,
        }

    def dumps(self) -> bytes:
        return json.dumps(self._parts).encode()


def arguments(*args: object, embed: object = _NO_EMBED, kwargs: object = None) -> list[object]:
    """The body of a message in Celery's second protocol."""
    return [list(args), {} if kwargs is None else kwargs, embed]


_HEADER: Final = struct.Struct(">3sBBBIQ")


def frame(  # the header as `codec` documents it, so that each field can lie
    payload: bytes,
    *,
    magic: bytes = b"PMT",
    version: int = 2,
    kind: int = FrameKind.LINES,
    compression: int = 0,
    count: int = 1,
    raw_size: int | None = None,
) -> bytes:
    size = len(payload) if raw_size is None else raw_size
    return _HEADER.pack(magic, version, kind, compression, count, size) + payload


def compressed(size_bytes: int, byte: bytes = b"\0") -> bytes:
    """Return a zstd frame that expands to that many of a byte, made without holding them."""
    compressor = zstd.ZstdCompressor(level=1)
    block = byte * MIB
    parts = [compressor.compress(block) for _ in range(size_bytes // MIB)]
    return b"".join(parts) + compressor.flush()


_TUPLE: Final = 7


def nested(levels: int, arrays: int) -> bytes:
    """Return msgpack of tuples in arrays in tuples …: `levels` times `arrays` deep."""
    data = b"\x90"
    for _ in range(levels):
        extension = b"\xc9" + len(data).to_bytes(4, "big") + bytes([_TUPLE]) + data
        data = b"\x91" * arrays + extension
    return data
