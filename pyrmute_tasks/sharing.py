"""Whether values may hold one object twice, found out at the speed of C.

Most records hold each of their dicts and lists once and are packed as they are. Packing
them by hand to find that out would cost ten times what packing costs, so this walks level
by level with functions that CPython has anyway.
"""

from collections.abc import Sequence
from gc import get_referents, is_tracked
from itertools import compress
from typing import Final

__all__ = ["BIN_8", "BIN_16", "BIN_32", "needs_care"]

BIN_8: Final = 0xC4  # what binary data begins with in msgpack, by the width of its size
BIN_16: Final = 0xC5
BIN_32: Final = 0xC6


def needs_care(values: Sequence[object], packed: bytes) -> bool:
    """Say whether msgpack may have changed something silently in making `packed`.

    That is an object which is reached twice, and would arrive as two, or a buffer, which
    would arrive as bytes. The answer may be yes without need, as for a shared tuple or for
    what is nested deep.

    Args:
        values: What was packed; the same object twice among them counts.
        packed: The outcome.
    """
    # A container without containers is not tracked by the collector. It may hold a
    # bytearray, but then its packed form holds a marker of binary data.
    thorough = BIN_8 in packed or BIN_16 in packed or BIN_32 in packed
    level = values if thorough else list(filter(is_tracked, values))
    seen: set[int] = set()
    count = levels = 0
    while level:
        found = list(compress(level, map(_is_container, map(type, level))))
        count += len(found)
        seen.update(map(id, found))
        levels += 1
        if len(seen) < count or levels > _DEEP or not _BUFFERS.isdisjoint(map(type, found)):
            return True
        level = get_referents(*(found if thorough else filter(is_tracked, found)))
    return False


_DEEP: Final = 8
_BUFFERS: Final = frozenset({bytearray, memoryview})
_is_container: Final = (_BUFFERS | {dict, list, tuple, set, frozenset}).__contains__
