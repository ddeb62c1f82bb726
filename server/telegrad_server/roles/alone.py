"""All in one: clients come to the worker directly."""

from __future__ import annotations

from pathlib import Path

from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.foreman import Foreman
from telegrad_server.roles.running import STOP_SECONDS, catalog, gate, say, stopping
from telegrad_server.service import Access, Server
from telegrad_server.worker import Worker


async def run(config: Config) -> int:
    """Serve until a signal."""
    stop = stopping()
    worker = Worker(config, pick_executor(config.backend, kernels=config.native_kernels))
    datasets = catalog(config)
    jobs = Foreman(worker, datasets, Path(config.data_dir)) if config.data_dir is not None and datasets else None
    server = Server(worker, config, Access(gate(config)), catalog=datasets, foreman=jobs)
    port = await server.start()
    worker.start()
    if jobs is not None:
        jobs.start()
    hello = worker.hello()
    notes = "; ".join(hello.warnings) or hello.backend
    if server.metrics_port is not None:
        notes += f"; metrics on {config.metrics_host}:{server.metrics_port}"
    say(f"telegrad-server {hello.server_version} listening on {config.host}:{port} ({notes})")
    await stop.wait()
    await server.stop(STOP_SECONDS)
    return 0
