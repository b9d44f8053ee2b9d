"""A proxy to a server that can be cut, mended, slowed down, or made to swallow data."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable

from tests.fleets.processes import HOST, free_port

__all__ = ["Proxy"]


class Proxy:
    """A proxy to a server on this machine that can be cut and mended.

    Args:
        upstream: The server's port.
        delay_s: How long everything takes on the way, each way.
    """

    def __init__(self, upstream: int, delay_s: float = 0.0) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._half_open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.mend()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def mend(self) -> None:
        """Accept connections."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, self.port))
        listener.listen()
        with self._lock:
            self._listener = listener
        self._in_background(self._accept, listener)

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        with self._lock:
            victims = [*self._sockets, *([self._listener] if self._listener else [])]
            self._listener = None
            self._sockets.clear()
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.shutdown(socket.SHUT_RDWR)
            victim.close()

    close = cut

    def swallow(self) -> None:
        """Drop all data on the existing connections; new ones work."""
        with self._lock:
            self._half_open |= self._sockets

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._join(client, listener)

    def _join(self, client: socket.socket, listener: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self._upstream))
        except OSError:
            client.close()
            return
        with self._lock:
            is_open = self._listener is listener
            if is_open:
                self._sockets |= {client, server}
        if not is_open:
            client.close()
            server.close()
            return
        self._in_background(self._pump, client, server)
        self._in_background(self._pump, server, client)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        if self._delay_s:
            self._pump_slowly(source, target)
        else:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if source not in self._half_open:
                        target.sendall(data)
        self._end(source, target)

    def _pump_slowly(self, source: socket.socket, target: socket.socket) -> None:
        """Forward each piece after the delay, without limiting the rate."""
        pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def read() -> None:
            data = b"-"
            while data:
                data = b""
                with contextlib.suppress(OSError):
                    data = source.recv(65536)
                pieces.put((time.monotonic() + self._delay_s, data))

        self._in_background(read)
        with contextlib.suppress(OSError):
            while (piece := pieces.get())[1]:
                time.sleep(max(0.0, piece[0] - time.monotonic()))  # this is the way's length
                target.sendall(piece[1])

    def _end(self, source: socket.socket, target: socket.socket) -> None:
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        with self._lock:
            self._sockets -= {source, target}
            self._half_open -= {source, target}

    @staticmethod
    def _in_background(function: Callable[..., None], *args: object) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()
