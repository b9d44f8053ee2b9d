"""Whether msgpack can be trusted with a value: whether it holds one object twice, or a buffer.

Most records hold each of their dicts and lists once and are packed by the library alone.
Taking every record apart to find out would cost many times what packing costs, so this
looks at containers only, and leaves out what the garbage collector knows to hold none.
"""

from gc import is_tracked
from typing import Any, Final

__all__ = ["BIN_8", "BIN_16", "BIN_32", "holds_buffer", "needs_care"]

BIN_8: Final = 0xC4  # what binary data begins with in msgpack, by the width of its size
BIN_16: Final = 0xC5
BIN_32: Final = 0xC6


def needs_care(record: object, packed: bytes) -> bool:
    """Say whether msgpack may have changed something silently in making `packed`.

    That is an object which is reached twice, and would arrive as two, or a buffer, which
    would arrive as bytes. The answer may be yes without need, as for a shared tuple or for
    what is nested deep.

    Args:
        record: What was packed, so it ends: it does not contain itself.
        packed: The outcome.
    """
    binary = _may_hold_binary(packed)
    containers: list[Any] = [record] if type(record) in _CONTAINERS else []
    add = containers.append
    for each in containers:  # which grows on the way; a comprehension costs a call in 3.11
        kind = type(each)
        if kind is dict or kind is tuple:
            # The collector does not track one that holds no container. It may hold a
            # bytearray, but then a marker of binary data is in its packed form.
            if not is_tracked(each):
                if binary and holds_buffer(each):
                    return True
                continue
        elif kind in _BUFFERS:
            return True
        for item in each.values() if kind is dict else each:  # a dict's keys are text
            if type(item) in _CONTAINERS:
                add(item)
    return len(containers) > 1 and len(set(map(id, containers))) < len(containers)


def holds_buffer(untracked: object) -> bool:
    """Say whether something that holds no container is or may hold a bytearray."""
    if type(untracked) is dict:
        return not _NO_LEAVES.isdisjoint(map(type, untracked.values()))
    if type(untracked) is tuple:
        return not _NO_LEAVES.isdisjoint(map(type, untracked))
    return type(untracked) in _BUFFERS


def _may_hold_binary(packed: bytes) -> bool:
    return BIN_8 in packed or BIN_16 in packed or BIN_32 in packed


_BUFFERS: Final = frozenset({bytearray, memoryview})
_NO_LEAVES: Final = _BUFFERS | {tuple}  # which may hold a buffer in turn
_CONTAINERS: Final = _BUFFERS | {dict, list, tuple, set, frozenset}
