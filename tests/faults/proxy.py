"""A TCP proxy that can break what passes through it: the network's faults on loopback."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator


class Proxy:
    """Forwards connections to a port until told to cut them, or to refuse new ones; a way takes ``delay_seconds``."""

    def __init__(self, target: int, *, delay_seconds: float = 0.0) -> None:
        self._target = target
        self._delay_seconds = delay_seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._refusing = False
        self.connections = 0
        self.bytes_up = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                refusing = self._refusing
                self.connections += refusing
            if refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
                self.connections += 1  # counted once it can be cut
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        late: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        sender = threading.Thread(target=self._send_late, args=(late, sink), daemon=True)
        if self._delay_seconds:
            sender.start()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if up:
                    self.bytes_up += len(data)
                if self._delay_seconds:
                    late.put((time.monotonic() + self._delay_seconds, data))
                else:
                    sink.sendall(data)
        if self._delay_seconds:
            late.put((0.0, b""))
            sender.join()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()  # each pump closes what it reads

    def _send_late(self, late: queue.SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
        """Much may be on its way at once: this is a long line, not a thin one."""
        with contextlib.suppress(OSError):
            while (item := late.get())[1]:
                time.sleep(max(item[0] - time.monotonic(), 0))
                sink.sendall(item[1])

    def cut(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for s in sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Break every connection and refuse new ones inside the ``with``."""
        with self._lock:
            self._refusing = True
        self.cut()
        try:
            yield
        finally:
            with self._lock:
                self._refusing = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()
