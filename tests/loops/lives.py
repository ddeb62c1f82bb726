"""Lives of a server, one after the other on one folder: processes of their own that begin quickly, and how they ended.

A fork of a process that has imported everything and started no thread is as much a server as one begun from nothing,
and is there in a fraction of the time: what lets tests end hundreds of them.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType

LONGEST_SECONDS = 120.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.loops.lives_begun"])


def _serve(arguments: Sequence[str], output: Connection, log: str, environ: Mapping[str, str]) -> None:
    """In the new process: the server's own `main`, which speaks to ``output``."""
    from telegrad_server.main import main

    os.environ.update(environ)
    os.dup2(output.fileno(), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.exit(main(arguments))


class Life:
    """A server over a folder, on NumPy, until it ends. ``failpoints`` are those of the setting."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        failpoints: str = "",
        port: int = 0,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._output, output = _FORKS.Pipe(duplex=False)
        self.log = folder.with_name(folder.name + ".log")
        arguments = ["--port", str(port), "--backend", "numpy", "--data-dir", str(folder), *options]
        if failpoints:
            arguments += ["--testing", "on", "--failpoints", failpoints]
        self.process = _FORKS.Process(
            target=_serve, args=(arguments, output, str(self.log), dict(environ)), daemon=True
        )
        self.process.start()
        output.close()

    @cached_property
    def port(self) -> int:
        """Where it listens; waits until it does."""
        said = b""
        while not said.endswith(b"\n"):
            piece = os.read(self._output.fileno(), 4096)
            assert piece, f"it ended with {self.ended()} and said {said!r}; {self.log.read_text()[-2000:]}"
            said += piece
        found = re.search(rb"listening on 127.0.0.1:(\d+)", said)
        assert found, f"the server said {said!r}"
        return int(found[1])

    @property
    def address(self) -> str:
        """What a client connects to; waits until the server listens."""
        return f"grpc://127.0.0.1:{self.port}"

    def ended(self) -> int:
        """How it ended, once it has: its exit status, or minus the signal."""
        self.process.join(LONGEST_SECONDS)
        assert self.process.exitcode is not None, f"it lives still; {self.log.read_text()[-2000:]}"
        return self.process.exitcode

    def kill(self) -> None:
        """End it by SIGKILL, if it lives."""
        self.process.kill()
        self.ended()

    def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGTERM)
        return self.ended()
