"""Workers as children of the gateway's process: a cluster on one machine, without Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from telegrad_server.cluster.launcher import Device, Ended, WorkerSpec

CLOSE_SECONDS = 5.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalLauncher:
    """Up to ``count`` workers that share this machine's cores. ``arguments`` are the options of each
    of them.

    A child ends with the gateway, even if that is killed: it reads a pipe that the gateway holds open.
    """

    def __init__(self, count: int, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._count = count
        self.arguments = tuple(arguments)
        self._environ = dict(environ)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._ended: Ended | None = None
        self._is_closed = False

    def open(self, ended: Ended, changed: Callable[[], None]) -> None:
        self._ended = ended
        changed()

    def devices(self) -> Sequence[Device]:
        cpus = max(1, len(os.sched_getaffinity(0)) // self._count)
        return [Device(f"cpu-{i}", "local", "cpu", cpus) for i in range(self._count)]

    def start(self, spec: WorkerSpec) -> None:
        environ = self._environ | dict.fromkeys(THREAD_VARIABLES, str(max(1, int(spec.cpus))))
        command = [sys.executable, "-m", "telegrad_server.main", "--role", "worker", "--name", spec.name]
        with self._lock:
            if self._is_closed:
                return
            child = subprocess.Popen(
                [*command, *self.arguments, "--end-with-input", "yes"], stdin=subprocess.PIPE, env=environ
            )
            self._children[spec.name] = child
        threading.Thread(target=self._watch, args=(spec.name, child), name=f"watch-{spec.name}", daemon=True).start()

    def _watch(self, name: str, child: subprocess.Popen[bytes]) -> None:
        status = child.wait()
        with self._lock:
            self._children.pop(name, None)
        with suppress(OSError):
            assert child.stdin is not None
            child.stdin.close()
        why = f"its process was killed by signal {-status}" if status < 0 else f"its process ended with {status}"
        if self._ended is not None:
            self._ended(name, why)

    def stop(self, name: str) -> None:
        with self._lock:
            child = self._children.get(name)
        if child is not None:
            child.kill()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            children = list(self._children.values())
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def process_ids(self) -> dict[str, int]:
        """The process of each worker, for operators and tests."""
        with self._lock:
            return {name: child.pid for name, child in self._children.items()}
