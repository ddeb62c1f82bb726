"""Workers as children of the gateway's process: a cluster on one machine, without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from telegrad_server.cluster.launcher import Device, Ended, WorkerSpec
from telegrad_server.cluster.tied import command

CLOSE_SECONDS = 5.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalLauncher:
    """Up to ``count`` workers that share this machine's cores, or have ``cpus`` each. They end with the gateway.

    ``arguments`` gives the options of a worker.
    """

    def __init__(
        self,
        count: int,
        *,
        cpus: float,
        arguments: Callable[[WorkerSpec], Sequence[str]],
        environ: Mapping[str, str],
    ) -> None:
        self._count = count
        self._cpus = cpus or max(1, len(os.sched_getaffinity(0)) // count)
        self._arguments = arguments
        self._environ = dict(environ)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._ended: Ended | None = None
        self._is_closed = False

    def open(self, ended: Ended, changed: Callable[[], None]) -> None:
        self._ended = ended
        changed()

    def devices(self) -> Sequence[Device]:
        return [Device(f"local/cpu{i}", "local", "cpu", self._cpus) for i in range(self._count)]

    def start(self, spec: WorkerSpec) -> None:
        # the thread that starts a child lives as long as the child: that is what the child is tied to
        threading.Thread(target=self._run, args=(spec,), name=f"telegrad-{spec.name}", daemon=True).start()

    def _run(self, spec: WorkerSpec) -> None:
        environ = self._environ | dict.fromkeys(THREAD_VARIABLES, str(max(1, int(spec.cpus))))
        line = command(signal.SIGKILL, "telegrad_server.main", self._arguments(spec))
        with self._lock:
            if self._is_closed:
                return
            child = subprocess.Popen(line, stdin=subprocess.DEVNULL, env=environ)
            self._children[spec.name] = child
        status = child.wait()
        with self._lock:
            self._children.pop(spec.name, None)
        why = f"its process was killed by signal {-status}" if status < 0 else f"its process ended with {status}"
        if self._ended is not None:
            self._ended(spec.name, why)

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
