"""Ray's actor for a worker: it starts the worker's process on its host and waits for its end. Plain data only.

The worker is a child of the actor's process and not the same one: its threads, environment and signals are its own,
Ray's token is not in it, and its exit status says why it ended. It cannot outlive the actor (`tied`).
"""

from __future__ import annotations

import os
import signal
import subprocess

from telegrad_server.cluster import tied
from telegrad_server.cluster.ray_cluster.settings import worker_environment
from telegrad_server.cluster.ray_cluster.start import LOG_VARIABLE


class WorkerProcess:
    """One worker on the host where Ray put this actor."""

    def where(self) -> tuple[str, int]:
        """The host's name and the actor's process: the answer says that it runs."""
        return os.uname().nodename, os.getpid()

    def run(self, module: str, arguments: list[str], environ: dict[str, str], cpus: float, gpus: float) -> int:
        """Run the worker; returns its exit status once it has ended, negative for a signal."""
        environment = {**worker_environment(os.environ, cpus=cpus, gpus=gpus), **environ}
        try:
            log = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND)
        except (KeyError, OSError):
            log = os.dup(2)  # Ray's own log of this process
        try:
            return subprocess.Popen(
                tied.command(signal.SIGKILL, module, arguments),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).wait()
        finally:
            os.close(log)
