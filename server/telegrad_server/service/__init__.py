"""The gRPC front: decode, ask the worker, encode. No decisions, and nothing that computes on the event loop."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import grpc.aio

from telegrad_server.config import Config
from telegrad_server.datasets import Catalog
from telegrad_server.foreman import Foreman
from telegrad_server.metrics import Endpoint, job_figures, worker_figures
from telegrad_server.service.datasets import Datasets
from telegrad_server.service.edge import Access, Refusals, TicketAccess
from telegrad_server.service.health import Health
from telegrad_server.service.jobs import Jobs
from telegrad_server.service.listening import OPTIONS, bind, credentials, new_server
from telegrad_server.service.sessions import Sessions
from telegrad_server.service.snapshot import of_worker
from telegrad_server.service.tensors import Tensors
from telegrad_server.worker import Worker

__all__ = ["OPTIONS", "Access", "Server", "TicketAccess"]

TICK_SECONDS = 0.5


class Server:
    """A worker behind gRPC on one address. ``access`` finds the tenant of a call, or refuses it."""

    def __init__(
        self,
        worker: Worker,
        config: Config,
        access: grpc.aio.ServerInterceptor,
        *,
        catalog: Catalog | None = None,
        foreman: Foreman | None = None,
        is_inside: bool = False,
    ) -> None:
        self._worker = worker
        self._config = config
        self._is_inside = is_inside
        self._foreman = foreman
        self._health = Health(lambda: not worker.is_stopping)
        self._server = new_server(
            config,
            [Refusals(worker.tally.refused), access],
            [
                Sessions(worker, config).handlers(),
                Tensors(worker).handlers(),
                Datasets(catalog).handlers(),
                Jobs(foreman, of_worker(worker)).handlers(),
                self._health.handlers(),
            ],
            is_inside=is_inside,
        )
        self._ticking: asyncio.Task[None] | None = None
        self._metrics: Endpoint | None = None

    async def start(self) -> int:
        """Listen; returns the port. OSError if the address cannot be bound."""
        config = self._config
        port = bind(self._server, config.host, config.port, credentials(config.tls_cert, config.tls_key))
        try:
            self._metrics = Endpoint.of(
                config, partial(worker_figures, self._worker), partial(job_figures, self._foreman)
            )
        except OSError as error:
            if not self._is_inside:
                raise
            logging.warning("no metrics of this worker: port %s: %s", config.metrics_port, error.strerror)
        await self._server.start()
        self._ticking = asyncio.create_task(self._tick())
        return port

    @property
    def metrics_port(self) -> int | None:
        """Where metrics are served, if they are."""
        return self._metrics.port if self._metrics is not None else None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._worker.tick()

    async def stop(self, grace_seconds: float) -> None:
        """Answer no new calls, end the sessions, and wait for calls under way."""
        if self._ticking is not None:
            self._ticking.cancel()
        if self._foreman is not None:
            await asyncio.to_thread(self._foreman.stop, self._config.job_grace_seconds)
        await asyncio.to_thread(self._worker.stop)
        self._health.end()
        await self._server.stop(grace_seconds)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
