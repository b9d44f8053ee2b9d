"""Frames: payloads behind a checked header.

Truncated, oversized, foreign or decompression-bomb messages are rejected before any of them is
used. A frame is ``magic "PMT" · version · kind · compression · count · raw size · payload``,
big-endian. Nothing in it can execute: there is no pickle, and no class is imported by name (see
`values`, whose functions can be imported from here).
"""

import enum
import struct
import sys
from dataclasses import dataclass
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from pyrmute_tasks.errors import FrameError, FrameTooLargeError
from pyrmute_tasks.wire.values import join_packed, pack, pack_record, unpack

__all__ = [
    "MAX_FRAME_BYTES",
    "Compression",
    "Frame",
    "FrameKind",
    "decode_frame",
    "encode_frame",
    "join_packed",
    "pack",
    "pack_record",
    "unpack",
]

MAX_FRAME_BYTES: Final = 512 * 1024 * 1024
"""Largest accepted payload, before and after decompression: Redis's limit for a value."""


class FrameKind(enum.IntEnum):
    """The content of a frame's payload."""

    OBJECTS = 1  # msgpack of a list of records
    LINES = 2  # JSON lines, each ended by a newline
    RANGES = 3  # where records stand in a file; as outputs, the files written (see `ranges`)


class Compression(enum.IntEnum):
    """The compression of a frame's payload."""

    NONE = 0
    ZSTD = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame.

    Attributes:
        kind: The content of the payload.
        count: Number of records in it.
        payload: The bytes, decompressed.
    """

    kind: FrameKind
    count: int
    payload: bytes | memoryview


_HEADER: Final = struct.Struct(">3sBBBIQ")
_MAGIC: Final = b"PMT"
_VERSION: Final = 2  # version 1 had no classes, no sharing, and turned bytearray into bytes
_BLOCK_BYTES: Final = 8 * 1024 * 1024
_ZSTD_LEVEL: Final = 1  # 660 MB/s a core; higher levels cost more than a LAN saves


def encode_frame(
    kind: FrameKind,
    count: int,
    payload: bytes,
    compression: Compression = Compression.NONE,
) -> bytes:
    """Put `payload`, `count` records, behind a header.

    Raises:
        FrameTooLargeError: If the frame would be larger than `MAX_FRAME_BYTES`.
    """
    raw_size = len(payload)
    _check_size(count, raw_size)
    if compression is Compression.ZSTD:
        payload = zstd.compress(payload, level=_ZSTD_LEVEL)
        _check_size(count, len(payload))  # incompressible data grows a little
    return _HEADER.pack(_MAGIC, _VERSION, kind, compression, count, raw_size) + payload


def _check_size(count: int, size_bytes: int) -> None:
    if _HEADER.size + size_bytes > MAX_FRAME_BYTES:
        raise FrameTooLargeError(count, size_bytes, MAX_FRAME_BYTES)


def decode_frame(frame: bytes | memoryview, max_bytes: int = MAX_FRAME_BYTES) -> Frame:
    """Check a frame and return its content.

    Args:
        frame: The bytes as received.
        max_bytes: Upper bound of the payload's size, also of the announced one.

    Raises:
        FrameError: If the bytes are not a whole frame of this version within the limit.
    """
    view = memoryview(frame)
    if len(view) < _HEADER.size:
        raise FrameError(f"a frame of {len(view)} bytes is shorter than its header")
    magic, version, kind, compression, count, raw_size = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise FrameError("these bytes are not a frame of pyrmute-tasks")
    if version != _VERSION:
        raise FrameError(
            f"frame version {version} is not supported here, only {_VERSION}; run the same "
            "pyrmute-tasks on producers and workers"
        )
    if raw_size > max_bytes:
        raise FrameError(f"a frame claims {raw_size} bytes and the limit is {max_bytes}")
    try:
        frame_kind, how = FrameKind(kind), Compression(compression)
    except ValueError as error:
        raise FrameError(f"a frame has an unknown kind or compression: {error}") from None
    payload: bytes | memoryview = view[_HEADER.size :]
    if how is Compression.ZSTD:
        payload = _decompress(payload, raw_size)
    if len(payload) != raw_size:
        raise FrameError(f"a frame announces {raw_size} bytes and holds {len(payload)}")
    return Frame(frame_kind, count, payload)


def _decompress(payload: bytes | memoryview, raw_size: int) -> bytes | memoryview:
    # Asking for one byte beyond the announced size bounds the memory that a bomb can take.
    decompressor = zstd.ZstdDecompressor()
    try:
        block = decompressor.decompress(payload, max_length=min(raw_size + 1, _BLOCK_BYTES))
        if len(block) < _BLOCK_BYTES:
            return block
        # Not in one call, which would hold it twice for a moment.
        whole, size = bytearray(raw_size + 1), 0
        while block:
            whole[size : size + len(block)] = block
            size += len(block)
            if decompressor.eof or size > raw_size:
                break
            most = min(raw_size + 1 - size, _BLOCK_BYTES)
            block = decompressor.decompress(b"", max_length=most)
        return memoryview(whole)[:size]
    except zstd.ZstdError as error:
        raise FrameError(f"a frame's payload cannot be decompressed: {error}") from None
