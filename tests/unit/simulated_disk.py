"""A shared disk that loses unsynced data, and processes that stop between any two calls.

What a process appends is first its own (a client's cache); a part of it may become visible to all
at any time; what is visible is durable only after a sync. A death loses, tears or garbles what was
the process's own; a power cut does it to all that is not durable, names included.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.unit.stepped_threads import SteppedThread


@dataclass(eq=False)
class Inode:
    durable: bytes = b""
    visible: bytes = b""


@dataclass
class Disk:
    names: dict[str, Inode] = field(default_factory=dict)
    durable_names: dict[str, Inode] = field(default_factory=dict)
    changes: int = 0

    def cut_power(self, rng: random.Random) -> None:
        """Forget what is not durable, or parts of it; all processes are dead already."""
        self.changes += 1
        for inode in dict.fromkeys((*self.names.values(), *self.durable_names.values())):
            lost = inode.visible[len(inode.durable) :]
            inode.visible = inode.durable = inode.durable + self.torn(lost, rng)
        for name in dict.fromkeys((*self.names, *self.durable_names)):
            survivor = rng.choice((self.names, self.durable_names)).get(name)
            self.names.pop(name, None)
            if survivor is not None:
                self.names[name] = survivor
        self.durable_names = dict(self.names)

    def torn(self, data: bytes, rng: random.Random) -> bytes:
        """Return possible remains of bytes whose writing was not finished."""
        if not data:
            return data
        cut = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                return b""
            case 1:
                return data
            case 2:
                return data[:cut]
            case 3:  # the size was written, and not the block
                return data[:cut] + bytes(len(data) - cut)
            case 4:  # what the block held in another file before
                lines = [
                    line
                    for _, inode in sorted(self.names.items())
                    for line in inode.durable.splitlines(keepends=True)
                    if line.startswith(b'{"range"')
                ]
                return rng.choice(lines) if lines else b""
            case _:  # garbled
                digits = [at for at, byte in enumerate(data) if byte in b"0123456789"]
                position = rng.choice(digits or [0])
                digit = b"%d" % rng.randrange(1, 10)
                return data[:position] + digit + data[position + 1 :]

    def after_the_worst(self) -> "Disk":
        """Return the disk after a power cut that loses everything unsynced."""
        left = {name: Inode(i.durable, i.durable) for name, i in self.durable_names.items()}
        return Disk(left, dict(left))


class SimulatedStorage:
    """One process's way to the disk.

    Args:
        disk: The disk.
        pause: Called before each operation.
    """

    def __init__(self, disk: Disk, pause: Callable[[], None] = lambda: None) -> None:
        self.disk = disk
        self.pause = pause
        self.own: dict[Inode, bytes] = {}  # appended, and not yet visible to others

    def create(self, name: str, /) -> "SimulatedFile":
        self.pause()
        if name in self.disk.names:
            raise FileExistsError(name)
        self.disk.changes += 1
        inode = self.disk.names[name] = Inode()
        return SimulatedFile(self, inode)

    def read(self, name: str, start: int = 0, length: int | None = None, /) -> bytes:
        self.pause()
        data = self.contents(self.find(name))
        return data[start:] if length is None else data[start : start + length]

    def size(self, name: str, /) -> int:
        self.pause()
        return len(self.contents(self.find(name)))

    def sync(self, name: str, /) -> None:
        self.pause()
        self.disk.changes += 1
        inode = self.find(name)
        inode.durable = inode.visible

    def link(self, name: str, new: str, /) -> None:
        self.pause()
        if new in self.disk.names:
            raise FileExistsError(new)
        self.disk.changes += 1
        self.disk.names[new] = self.find(name)

    def replace(self, name: str, new: str, /) -> None:
        self.pause()
        self.disk.changes += 1
        self.disk.names[new] = self.find(name)
        del self.disk.names[name]

    def remove(self, name: str, /) -> None:
        self.pause()
        self.find(name)
        self.disk.changes += 1
        del self.disk.names[name]

    def names(self, folder: str = "", /) -> list[str]:
        self.pause()
        return [name.rpartition("/")[2] for name in self.disk.names if in_folder(name, folder)]

    def sync_folder(self, folder: str = "", /) -> None:
        self.pause()
        self.disk.changes += 1
        kept = {n: i for n, i in self.disk.durable_names.items() if not in_folder(n, folder)}
        kept.update({n: i for n, i in self.disk.names.items() if in_folder(n, folder)})
        self.disk.durable_names = kept

    def touch(self, name: str, /) -> None:
        self.pause()
        self.find(name)

    def changed_ns(self, name: str, /) -> int:
        self.pause()
        self.find(name)
        return 0

    # --- what happens to a process ------------------------------------------------------------

    def leak(self, rng: random.Random) -> None:
        """Show others a part of the appended data."""
        for inode, data in self.own.items():
            cut = rng.choice((rng.randrange(len(data) + 1), len(data)))
            inode.visible += data[:cut]
            self.own[inode] = data[cut:]
            self.disk.changes += 1

    def die(self, rng: random.Random) -> None:
        """Lose the data that others have not seen, or parts of it."""
        for inode, data in self.own.items():
            inode.visible += self.disk.torn(data, rng)
            self.disk.changes += 1
        self.own.clear()

    def has_own(self, prefix: str) -> bool:
        """Whether some files hold data that others have not seen."""
        files = {inode for name, inode in self.disk.names.items() if name.startswith(prefix)}
        return any(data for inode, data in self.own.items() if inode in files)

    # --- details ------------------------------------------------------------------------------

    def find(self, name: str) -> Inode:
        inode = self.disk.names.get(name)
        if inode is None:
            raise FileNotFoundError(name)
        return inode

    def contents(self, inode: Inode) -> bytes:
        return inode.visible + self.own.get(inode, b"")


class SimulatedFile:
    def __init__(self, storage: SimulatedStorage, inode: Inode) -> None:
        self.storage, self.inode = storage, inode

    def append(self, data: bytes | memoryview, /) -> None:
        self.storage.pause()
        own = self.storage.own
        own[self.inode] = own.get(self.inode, b"") + bytes(data)

    def sync(self) -> None:
        self.storage.pause()
        self.storage.disk.changes += 1
        self.inode.visible += self.storage.own.pop(self.inode, b"")
        self.inode.durable = self.inode.visible

    def close(self) -> None:
        """Do nothing: appended data stays."""


def in_folder(name: str, folder: str) -> bool:
    return name.rpartition("/")[0] == folder


class SimulatedProcess(SteppedThread):
    """A process whose calls to the disk happen one by one, on command.

    Args:
        disk: The disk.
    """

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.storage = SimulatedStorage(disk, self.pause)

    def start(self, work: Callable[[], None]) -> None:
        """Start a function, up to its first call to the disk."""
        self.begin(work)
        self.step()

    def step(self) -> None:
        """Do the next call to the disk, and run up to the one after it."""
        if self.is_busy:
            self.go_on(0)

    def finish(self) -> None:
        """Do all remaining calls of the started function."""
        while self.is_busy:
            self.step()

    def die(self, rng: random.Random) -> None:
        """End the process immediately."""
        self.end()
        self.storage.die(rng)
