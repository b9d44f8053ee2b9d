"""Whether msgpack can be trusted with a value: whether it holds one object twice, or a buffer.

Most records hold each of their dicts and lists once and are packed by the library alone.
Taking every record apart to find out would cost many times what packing costs, so this
looks at containers only, and leaves out what the garbage collector knows to hold none.
"""

from gc import is_tracked
from typing import Any, Final

__all__ = ["holds_buffer", "may_hold_binary", "needs_care"]

_BIN_8: Final = 0xC4  # what binary data begins with in msgpack, by the width of its size
_BIN_16: Final = 0xC5
_BIN_32: Final = 0xC6


def needs_care(record: object, packed: bytes) -> bool:
    """Say whether msgpack may have changed something silently in making `packed`.

    That is an object which is reached twice, and would arrive as two, or a buffer, which
    would arrive as bytes. The answer may be yes without need, as for a shared tuple or for
    what is nested deep.

    Args:
        record: What was packed, so it ends: it does not contain itself.
        packed: The outcome.
    """
    containers: list[Any] = [record] if type(record) in _CONTAINERS else []
    add = containers.append
    for each in containers:  # which grows on the way; a comprehension costs a call in 3.11
        kind = type(each)
        if kind is dict:
            if not is_tracked(each):
                continue  # the collector does not track one that holds no container
            items: Any = each.values()  # its keys are text
        elif kind in _BUFFERS:
            return True
        else:
            items = each
        for item in items:
            if type(item) in _CONTAINERS:
                add(item)
    if len(set(map(id, containers))) < len(containers):
        return True
    # What was left out holds a buffer only if its packed form has a marker of binary data.
    return may_hold_binary(packed) and any(
        holds_buffer(each) for each in containers if not is_tracked(each)
    )


def holds_buffer(untracked: object) -> bool:
    """Say whether something that holds no container is or may hold a bytearray."""
    if type(untracked) is dict:
        return not _NO_LEAVES.isdisjoint(map(type, untracked.values()))
    if type(untracked) is tuple:
        return not _NO_LEAVES.isdisjoint(map(type, untracked))
    return type(untracked) in _BUFFERS


def may_hold_binary(packed: bytes) -> bool:
    """Say whether a packed value may hold binary data."""
    return _BIN_8 in packed or _BIN_16 in packed or _BIN_32 in packed


_BUFFERS: Final = frozenset({bytearray, memoryview})
_NO_LEAVES: Final = _BUFFERS | {tuple}  # which may hold a buffer in turn
_CONTAINERS: Final = _BUFFERS | {dict, list, tuple, set, frozenset}
