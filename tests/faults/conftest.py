"""Servers and proxies for tests that break things."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults.proxy import Proxy


class Server:
    """A telegrad-server process on loopback."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "telegrad_server.main", "--port", str(port), "--backend", "numpy", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"listening on ([\d.]+):(\d+)", line)
        assert found, f"the server said {line!r}"
        self.port = int(found[2])
        self.address = f"grpc://{found[1]}:{found[2]}"

    def stop(self) -> int:
        self.process.terminate()
        return self._wait()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        code = self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Start servers; they are killed at the end."""
    servers: list[Server] = []

    def start(*options: str, port: int = 0) -> Server:
        servers.append(Server(*options, port=port))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def wait_until(condition: Callable[[], bool], *, seconds: float = 10.0) -> float:
    """Poll until the condition holds; returns how long it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition did not come true in time"
        time.sleep(0.01)
    return time.monotonic() - start
