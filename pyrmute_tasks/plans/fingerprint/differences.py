"""Named differences between two fingerprint trees.

Entries are matched by name, module included, at first; what remains may have moved or be in
the script, and is matched without the module.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pyrmute_tasks.errors import FrameError
from pyrmute_tasks.plans.fingerprint.tree import Entry, FingerprintTree

__all__ = ["Difference", "compare_trees", "describe_held", "root_of"]

_NAMED_AT_MOST: Final = 5
_MAX_REASON: Final = 300
_WIRE: Final = re.compile(r"([0-9a-f]{16})(?: |$)")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between two fingerprint trees.

    Attributes:
        name: The entry's name.
        place: Its place in our files; empty if unknown.
        how: ``"differs"``, or the side on which alone it is reached.
        reached_by: The step or model that reaches it; empty if it is one itself.
    """

    name: str
    place: str
    how: str
    reached_by: str = ""

    def __str__(self) -> str:
        what = f"{self.name} ({self.place})" if self.place else self.name
        if not self.reached_by:
            return f"{what} {self.how}"
        return f"{self.reached_by} reaches {what}, which {self.how}"


def root_of(held: str) -> str:
    """Return the fingerprint at the start of a worker's reply."""
    found = _WIRE.match(held)
    return found[1] if found else held


def describe_held(mine: FingerprintTree | None, held: str) -> str:
    """Describe a worker's code and its differences from the producer's.

    Args:
        mine: The producer's tree; None if unknown.
        held: The worker's reply: `FingerprintTree.to_wire`, a fingerprint alone, or what it
            lacks. Not trusted.
    """
    root = _printable(root_of(held))
    if mine is None:
        return root
    try:
        theirs = FingerprintTree.from_wire(held)
    except FrameError:
        return root
    found = compare_trees(mine, theirs)
    if not found:
        return root
    more = f" and {len(found) - _NAMED_AT_MOST} more" if len(found) > _NAMED_AT_MOST else ""
    return f"{root} ({'; '.join(map(str, found[:_NAMED_AT_MOST]))}{more})"


def _printable(text: str) -> str:
    short = text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def compare_trees(mine: FingerprintTree, theirs: FingerprintTree) -> list[Difference]:
    """Return the differences between two trees, as seen from the first one.

    Names only the entries that differ themselves, not those that reach them.
    """
    if mine.root == theirs.root:
        return []
    pairs, only_mine, only_theirs = _matched(mine.entries, theirs.entries)
    changed = [(a, b) for a, b in pairs.items() if mine.entries[a].hash != theirs.entries[b].hash]
    if any(mine.entries[a].name.startswith("python ") for a, _ in changed):
        changed, only_mine, only_theirs = changed[:1], [], []  # other bytecode for everything
    ways, their_ways = _reached_from(mine), _reached_from(theirs)
    found = [
        _difference(mine, a, ways, _change_of(mine.entries[a], theirs.entries[b]))
        for a, b in changed
    ]
    explained = {a for a, _ in changed}
    found += [
        _difference(mine, at, ways, "is reached on this side only")
        for at in only_mine
        if ways.get(at) not in explained and ways.get(at) not in only_mine
    ]
    explained = {b for _, b in changed}
    found += [
        _difference(theirs, at, their_ways, "is reached on the other side only")
        for at in only_theirs
        if their_ways.get(at) not in explained and their_ways.get(at) not in only_theirs
    ]
    if not found:  # the same entries, used in each other's place
        found = [
            _difference(mine, a, ways, "uses others")
            for a, b in pairs.items()
            if [pairs.get(ref) for ref in mine.entries[a].reaches] != [*theirs.entries[b].reaches]
        ]
    return found


def _change_of(mine: Entry, theirs: Entry) -> str:
    if mine.name.startswith(("library ", "python ")):
        return f"is {theirs.name.rpartition(' ')[2]} on the other side"
    return "differs"


def _matched(
    mine: tuple[Entry, ...], theirs: tuple[Entry, ...]
) -> tuple[dict[int, int], list[int], list[int]]:
    """Pair entries by their names; return the pairs and the rest of each side."""
    keys = {key: at for at, key in _keys(theirs, _full_key)}
    pairs = {at: keys.pop(key) for at, key in _keys(mine, _full_key) if key in keys}
    # The script has another module name, and a function may have moved.
    taken = set(pairs.values())
    keys = {key: at for at, key in _keys(theirs, _last_key) if at not in taken}
    for at, key in _keys(mine, _last_key):
        if at not in pairs and key in keys:
            pairs[at] = keys.pop(key)
    taken = set(pairs.values())
    left = [at for at in range(len(mine)) if at not in pairs]
    return dict(sorted(pairs.items())), left, [at for at in range(len(theirs)) if at not in taken]


def _keys(
    entries: tuple[Entry, ...], key_of: Callable[[str], str]
) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yield a key for each entry, numbered where several have the same."""
    seen: Counter[str] = Counter()
    for at, entry in enumerate(entries):
        key = key_of(entry.name)
        seen[key] += 1
        yield at, (key, seen[key])


def _full_key(name: str) -> str:
    kind, _, rest = name.partition(" ")
    if kind in ("library", "python"):
        return f"{kind} {rest.partition(' ')[0]}"
    return f"{kind} {rest}" if kind == "step" else rest


def _last_key(name: str) -> str:
    return _full_key(name).rpartition(".")[2] if " " not in name.partition(" ")[2] else name


def _reached_from(tree: FingerprintTree) -> dict[int, int]:
    """Return the entry that reaches each other entry first; top entries have none."""
    ways: dict[int, int] = {}
    queue = deque(range(tree.tops))
    while queue:
        at = queue.popleft()
        for ref in tree.entries[at].reaches:
            if ref >= tree.tops and ref not in ways:
                ways[ref] = at
                queue.append(ref)
    return ways


def _difference(tree: FingerprintTree, at: int, ways: dict[int, int], how: str) -> Difference:
    entry = tree.entries[at]
    top = at
    while top in ways:
        top = ways[top]
    reached_by = tree.entries[top].name if top != at else ""
    return Difference(entry.name, entry.place, how, reached_by)
