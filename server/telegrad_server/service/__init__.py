"""The gRPC front: decode, ask the worker, encode. No decisions, and nothing that computes on the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

import grpc
import grpc.aio

from telegrad_server.access import Gate
from telegrad_server.config import Config
from telegrad_server.metrics import Endpoint, worker_figures
from telegrad_server.service.edge import Access, Refusals
from telegrad_server.service.health import Health
from telegrad_server.service.sessions import MESSAGE_BYTES, Sessions
from telegrad_server.service.tensors import Tensors
from telegrad_server.worker import Worker

OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 << 10),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.settings_timeout", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 300_000),
]
"""The server's half of the limits that reliability asks for; the client's half is in telegrad.transport.remote."""

TICK_SECONDS = 0.5


def options(config: Config) -> list[tuple[str, int]]:
    """The options of a server."""
    return [
        *OPTIONS,
        ("grpc.max_connection_age_ms", int(config.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(config.connection_grace_seconds * 1000)),
    ]


class Server:
    """A worker behind gRPC on one address."""

    def __init__(self, worker: Worker, config: Config, gate: Gate) -> None:
        self._worker = worker
        self._config = config
        self._server = grpc.aio.server(
            interceptors=[Refusals(worker.tally.refused), Access(gate)],
            options=options(config),
            maximum_concurrent_rpcs=4 * config.max_sessions,
        )
        self._health = Health(lambda: not worker.is_stopping)
        self._server.add_generic_rpc_handlers(
            [Sessions(worker, config).handlers(), Tensors(worker).handlers(), self._health.handlers()]
        )
        self._ticking: asyncio.Task[None] | None = None
        self._metrics: Endpoint | None = None

    async def start(self) -> int:
        """Listen; returns the port. OSError if the address cannot be bound."""
        target = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{target}:{self._config.port}"
        try:
            if self._config.tls_cert is not None and self._config.tls_key is not None:
                port = self._server.add_secure_port(address, _credentials(self._config))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}: another program does, or the address is not this machine's")
        if self._config.metrics_host is not None:
            figures = partial(worker_figures, self._worker)
            self._metrics = Endpoint([figures], host=self._config.metrics_host, port=self._config.metrics_port)
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
        await asyncio.to_thread(self._worker.stop)
        self._health.end()
        await self._server.stop(grace_seconds)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)


def _credentials(config: Config) -> grpc.ServerCredentials:
    assert config.tls_cert is not None and config.tls_key is not None
    with open(config.tls_cert, "rb") as cert, open(config.tls_key, "rb") as key:
        return grpc.ssl_server_credentials([(key.read(), cert.read())])
