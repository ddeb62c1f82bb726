"""All in one: clients come to the worker directly."""

from __future__ import annotations

import asyncio
from pathlib import Path

from telegrad_server.config import Config
from telegrad_server.executors import pick_executor
from telegrad_server.failpoints import chosen
from telegrad_server.floor import Here
from telegrad_server.foreman import Foreman
from telegrad_server.keeper import Rules
from telegrad_server.roles.hardware import OneWorker
from telegrad_server.roles.page import open_page
from telegrad_server.roles.running import STOP_SECONDS, catalog, gate, say, stopping
from telegrad_server.service import Access, Server
from telegrad_server.worker import Worker


async def run(config: Config) -> int:
    """Serve until a signal."""
    stop, reached = stopping(), chosen(config.failpoints, testing=config.testing)
    executor = pick_executor(config.backend, kernels=config.native_kernels, kernels_dir=config.kernels_dir)
    executor.expect_kernels()
    worker = Worker(config, executor)
    datasets = catalog(config)
    jobs = None
    if config.data_dir is not None and datasets is not None:
        floor = Here(worker, reached=reached)
        jobs = Foreman(
            floor,
            datasets,
            Path(config.data_dir),
            reached=reached,
            rules=Rules.of(config),
            checkpoints=config.checkpoint_store,
        )
    tokens = gate(config)
    server = Server(worker, config, Access(tokens), catalog=datasets, foreman=jobs)
    port = await server.start()
    worker.start()
    if jobs is not None:
        jobs.start()
    hello = worker.hello()
    notes = "; ".join(hello.warnings) or hello.backend
    if server.metrics_port is not None:
        notes += f"; metrics on {config.metrics_host}:{server.metrics_port}"
    page = open_page(config, tokens, OneWorker(worker, executor), jobs=jobs, datasets=datasets)
    if page is not None:
        notes += f"; page at {page.address}"
    say(f"telegrad-server {hello.server_version} listening on {config.host}:{port} ({notes})")
    await stop.wait()
    if page is not None:
        await asyncio.to_thread(page.close)
    await server.stop(STOP_SECONDS)
    return 0
