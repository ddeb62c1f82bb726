"""``telegrad-server``: wire the parts together, listen, and stop on a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from telegrad.errors import AccessError, ResourceError

from telegrad_server.access import Gate, check_exposure
from telegrad_server.config import Config, read_config
from telegrad_server.executors import pick_executor
from telegrad_server.service import Server
from telegrad_server.worker import Worker

STOP_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    config = read_config(arguments, os.environ)
    try:
        check_exposure(config)
        gate = Gate.from_file(config.token_file) if config.token_file else Gate()
        executor = pick_executor(config.backend)
    except (AccessError, ResourceError) as error:
        print(f"telegrad-server: {error.message}", file=sys.stderr)
        return 2
    worker = Worker(config, executor)
    try:
        asyncio.run(_serve(worker, config, gate))
    except OSError as error:
        print(f"telegrad-server: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(worker: Worker, config: Config, gate: Gate) -> None:
    server = Server(worker, config, gate)
    port = await server.start()
    worker.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)  # the second signal: now
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    hello = worker.hello()
    notes = "; ".join(hello.warnings) or hello.backend
    if server.metrics_port is not None:
        notes += f"; metrics on {config.metrics_host}:{server.metrics_port}"
    print(f"telegrad-server {hello.server_version} listening on {config.host}:{port} ({notes})", flush=True)
    await stopping.wait()
    await server.stop(STOP_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
