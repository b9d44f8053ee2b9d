"""Check that msgpack packs a value faithfully: no shared objects, and no buffers.

Most records hold each dict and list once and are packed by the library alone. Taking every record
apart to find out would cost many times the packing, so this looks at containers only, and skips
those that the garbage collector knows to hold none.
"""

from gc import is_tracked
from typing import Any, Final

__all__ = ["holds_buffer", "may_hold_binary", "needs_care"]

_BIN_8: Final = 0xC4  # first byte of binary data in msgpack, by the width of its size
_BIN_16: Final = 0xC5
_BIN_32: Final = 0xC6


def needs_care(record: object, packed: bytes) -> bool:
    """Return whether msgpack may have silently changed a value while packing it.

    It turns an object that is held twice into two, and a buffer into bytes. The answer may be a
    false positive, as for a shared tuple or deep nesting.

    Args:
        record: The value, which does not contain itself: it has been packed.
        packed: Its packed form.
    """
    containers: list[Any] = [record] if type(record) in _CONTAINERS else []
    add = containers.append
    for each in containers:  # grows during the loop; a comprehension costs a call in 3.11
        kind = type(each)
        if kind is dict:
            if not is_tracked(each):
                continue  # the collector does not track dicts without containers
            items: Any = each.values()  # its keys are strings
        elif kind in _BUFFERS:
            return True
        else:
            items = each
        for item in items:
            if type(item) in _CONTAINERS:
                add(item)
    if len(set(map(id, containers))) < len(containers):
        return True
    # The skipped parts hold a buffer only if the packed form has a marker of binary data.
    return may_hold_binary(packed) and any(
        holds_buffer(each) for each in containers if not is_tracked(each)
    )


def holds_buffer(untracked: object) -> bool:
    """Return whether a value other than a container is or may hold a bytearray."""
    if type(untracked) is dict:
        return not _NO_LEAVES.isdisjoint(map(type, untracked.values()))
    if type(untracked) is tuple:
        return not _NO_LEAVES.isdisjoint(map(type, untracked))
    return type(untracked) in _BUFFERS


def may_hold_binary(packed: bytes) -> bool:
    """Return whether a packed value may hold binary data."""
    return _BIN_8 in packed or _BIN_16 in packed or _BIN_32 in packed


_BUFFERS: Final = frozenset({bytearray, memoryview})
_NO_LEAVES: Final = _BUFFERS | {tuple}  # a tuple may hold a buffer
_CONTAINERS: Final = _BUFFERS | {dict, list, tuple, set, frozenset}
