"""A telegrad-server in a process of its own, on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Server(NamedTuple):
    """Where it listens, and its process."""

    port: int
    pid: int

    @property
    def address(self) -> str:
        """What `tg.connect` takes."""
        return f"grpc://127.0.0.1:{self.port}"


@contextmanager
def server(*options: str) -> Iterator[Server]:
    """A server on NumPy while the ``with`` lasts."""
    command = [sys.executable, "-m", "telegrad_server.main", "--port", "0", "--backend", "numpy", *options]
    # what is installed has its bytecode; a checkout may be used where none is written
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"listening on [\d.]+:(\d+)", line)
        assert found, f"the server said {line!r}"
        try:
            yield Server(int(found[1]), process.pid)
        finally:
            process.terminate()
