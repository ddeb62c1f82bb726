"""The client on both of its connections: the worker in this process, and a real server over loopback gRPC."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import telegrad as tg


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
        code = self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    assert server.stop() == 0


@pytest.fixture(params=["embedded", "grpc"])
def session(request: pytest.FixtureRequest) -> Iterator[tg.Session]:
    """A fresh session; every behaviour must hold on both connections."""
    address = None if request.param == "embedded" else request.getfixturevalue("server").address
    with tg.connect(address, backend="numpy", new=True) as session:
        yield session
