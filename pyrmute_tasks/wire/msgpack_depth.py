"""Nesting depth and items of a msgpack payload, without recursion; it may be malformed.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from collections.abc import Iterator
from typing import Final

__all__ = ["items_of", "nests_deeper"]

# Size of the value behind the first byte, by that byte, where it is fixed.
_FIXED: dict[int, int] = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {
    first: size
    for begin, sizes in ((0xCC, (1, 2, 4, 8)), (0xD0, (1, 2, 4, 8)), (0xD4, (2, 3, 5, 9, 17)))
    for first, size in enumerate(sizes, begin)
}
_FIXED |= {0xA0 + size: size for size in range(32)}  # short strings
_FEW_ITEMS: Final = {0x80 + n: 2 * n for n in range(16)} | {0x90 + n: n for n in range(16)}
# Width of the length that follows; extension types have one more byte after it.
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}


def nests_deeper(data: bytes | memoryview, limit: int) -> bool:
    """Return whether arrays and maps in `data` nest deeper than `limit`.

    The content of extension types is not examined.
    """
    view = memoryview(data)
    at, end = 0, len(view)
    left: list[int] = []  # remaining items of each open container
    while at < end:
        while left and left[-1] == 0:
            left.pop()
        if left:
            left[-1] -= 1
        at, items = _skip(view, at)
        if items:
            left.append(items)
            if len(left) > limit:
                return True
    return False


def items_of(data: bytes | memoryview) -> Iterator[memoryview]:
    """Yield the items of a packed list, still packed; none if it is something else."""
    view = memoryview(data)
    end = len(view)
    if not end or view[0] not in _LISTS:
        return
    at, left = _skip(view, 0)
    while left and at < end:
        begin, opened = at, 1
        while opened and at < end:
            at, items = _skip(view, at)
            opened += items - 1
        yield view[begin:at]
        left -= 1


_LISTS: Final = {*range(0x90, 0xA0), *_ARRAYS}


def _skip(view: memoryview, at: int) -> tuple[int, int]:
    """Return the position of the next value, and the number of items this one opens."""
    first = view[at]
    at += 1
    items = 0
    if first in _FEW_ITEMS:
        items = _FEW_ITEMS[first]
    elif first in _FIXED:
        at += _FIXED[first]
    elif first in _SIZED:
        at += _SIZED[first] + _number(view, at, _SIZED[first])
    elif first in _EXTENSIONS:
        at += _EXTENSIONS[first] + 1 + _number(view, at, _EXTENSIONS[first])
    elif first in _ARRAYS:
        items = _number(view, at, _ARRAYS[first])
        at += _ARRAYS[first]
    elif first in _MAPS:
        items = 2 * _number(view, at, _MAPS[first])
        at += _MAPS[first]
    return at, items


def _number(view: memoryview, at: int, width: int) -> int:
    return int.from_bytes(view[at : at + width], "big")
