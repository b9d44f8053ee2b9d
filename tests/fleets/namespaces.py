"""Two hosts on this machine, and the link between them: slow, lossy, cut, or swallowing.

Each host is a network namespace without a name, which ends with the process that holds it,
however that ends. A TUN device in each leads to a thread that carries the packets. So it
needs root and ``/dev/net/tun``, and no qdisc or firewall of the kernel's.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Self

import pytest

FAR: Final = "10.77.0.1"
"""Address of the far host, which has the servers."""

_NEAR: Final = "10.77.0.2"
_DEVICE: Final = "line0"
_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TUN_NO_PI: Final = 0x1001
_TCP: Final = 6
_MOST_BYTES: Final = 65_536

Flow = frozenset[bytes]


class Link:
    """Carries packets between two TUN devices; its attributes may change at any time.

    Attributes:
        delay_s: How long each packet takes, each way.
        loss: Which part of the packets gets lost, each way.
        largest_bytes: Packets that are larger vanish, and nobody is told.
    """

    def __init__(self, devices: tuple[int, int]) -> None:
        self.delay_s = 0.0
        self.loss = 0.0
        self.largest_bytes = _MOST_BYTES
        self._devices = devices
        self._random = random.Random(0)
        self._flows: set[Flow] = set()
        self._swallowed: set[Flow] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)
        self._thread.start()

    def swallow(self) -> None:
        """Drop all packets of the existing connections; new ones work."""
        self._swallowed |= self._flows

    @property
    def is_used(self) -> bool:
        """Whether it has carried connections since it was made."""
        return bool(self._flows)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _carry(self) -> None:
        first, second = self._devices
        due: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._stop.is_set():
            until_s = max(0.0, due[0][0] - time.monotonic()) if due else 0.05
            ready, _, _ = select.select(self._devices, (), (), min(until_s, 0.05))
            now = time.monotonic()
            for device in ready:
                try:
                    packet = os.read(device, _MOST_BYTES)
                except OSError:  # the link is down
                    self._stop.wait(0.01)
                    continue
                if self._passes(packet):
                    target = second if device == first else first
                    count += 1
                    heapq.heappush(due, (now + self.delay_s, count, target, packet))
            while due and due[0][0] <= now:
                _, _, target, packet = heapq.heappop(due)
                with contextlib.suppress(OSError):
                    os.write(target, packet)

    def _passes(self, packet: bytes) -> bool:
        flow = _flow(packet)
        if flow is not None:
            self._flows.add(flow)
        return (
            len(packet) <= self.largest_bytes
            and flow not in self._swallowed
            and self._random.random() >= self.loss
        )


def _flow(packet: bytes) -> Flow | None:
    """Return the two ends of a TCP connection."""
    if packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    start = 4 * (packet[0] & 15)
    return frozenset(
        (packet[12:16] + packet[start : start + 2], packet[16:20] + packet[start + 2 : start + 4])
    )


class TwoHosts:
    """A far host, on which the calling thread is inside the block, and a near one.

    What the thread starts, threads and processes, is on its host.

    Attributes:
        link: The network between the two.
    """

    link: Link

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            home = _this_host(stack)
            stack.callback(_go, home)
            near, near_device = _host(stack, _NEAR)
            self._near = near
            far, far_device = _host(stack, FAR)
            self._far = far
            self.link = Link((near_device, far_device))
            stack.callback(self.link.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def near(self) -> Iterator[None]:
        """Move this thread to the near host."""
        with _on(self._near):
            yield

    @contextmanager
    def far(self) -> Iterator[None]:
        """Move this thread to the far host, if it was started on the near one."""
        with _on(self._far):
            yield

    @contextmanager
    def link_down(self) -> Iterator[None]:
        """Take the near host's link down: its connections fail for want of a route."""
        with self.near():
            _ip("link", "set", _DEVICE, "down")
        try:
            yield
        finally:
            with self.near():
                _ip("link", "set", _DEVICE, "up")


def can_make_hosts() -> bool:
    """Whether this process may create namespaces and devices, and `ip` exists."""
    try:
        with TwoHosts():
            return True
    except (OSError, subprocess.SubprocessError):
        return False


def require_hosts() -> None:
    """Skip the test where hosts cannot be made; elsewhere it must pass."""
    if not can_make_hosts():
        pytest.skip("no network namespaces can be made here: it needs root and /dev/net/tun")


def _host(stack: ExitStack, address: str) -> tuple[int, int]:
    """Create a host and move there; return its namespace and its end of the link."""
    check(libc().unshare(_CLONE_NEWNET))
    namespace = _this_host(stack)
    device = os.open("/dev/net/tun", os.O_RDWR)
    stack.callback(os.close, device)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _TUN_NO_PI))
    _ip("link", "set", "lo", "up")
    _ip("address", "add", f"{address}/29", "dev", _DEVICE)
    _ip("link", "set", _DEVICE, "up")
    return namespace, device


@contextmanager
def _on(namespace: int) -> Iterator[None]:
    with ExitStack() as stack:
        stack.callback(_go, _this_host(stack))
        _go(namespace)
        yield


def _this_host(stack: ExitStack) -> int:
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    stack.callback(os.close, namespace)
    return namespace


def _go(namespace: int) -> None:
    check(libc().setns(namespace, _CLONE_NEWNET))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def libc() -> ctypes.CDLL:
    """The C library, whose errors `check` raises."""
    return ctypes.CDLL(None, use_errno=True)


def check(status: int) -> None:
    """Raise the error of a call of the C library, if it failed."""
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
