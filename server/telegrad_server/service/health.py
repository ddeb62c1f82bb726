"""The health service of gRPC (grpc.health.v1), for load balancers, containers and Kubernetes. It wants no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from telegrad.errors import NotFound, QuotaExceeded

from telegrad_server.service.edge import guarded, guarded_stream, reader

READY = ("", "telegrad.wire.v1.Sessions")
"""What answers whether sessions can be opened."""

LIVE = "live"
"""What answers whether the process lives: it serves while it drains, too."""

WATCH_SECONDS = 0.5
MAX_WATCHERS = 32
"""Those who may come without a token must not use up what others need."""

_Status = pb.HealthCheckResponse.ServingStatus


class Health:
    """The handlers of the health service over a question that is asked anew for each answer."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
        self._watchers = 0
        self._ended = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers under their names."""
        read, write = reader(pb.HealthCheckRequest), pb.HealthCheckResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(guarded(self.check), read, write),
                "Watch": grpc.unary_stream_rpc_method_handler(guarded_stream(self.watch), read, write),
            },
        )

    def end(self) -> None:
        """Tell the watchers for the last time, and let them go. To be called on the loop, once it is not ready."""
        self._ended.set()

    async def check(self, request: pb.HealthCheckRequest, context: Any) -> pb.HealthCheckResponse:
        """Whether a service serves. NotFound if there is none of the name."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            raise NotFound("there is no such service here", reason="NOT_FOUND")
        return pb.HealthCheckResponse(status=status)

    async def watch(self, request: pb.HealthCheckRequest, context: Any) -> AsyncIterator[pb.HealthCheckResponse]:
        """The same, and again whenever it changes."""
        if self._watchers >= MAX_WATCHERS:
            raise QuotaExceeded(f"{MAX_WATCHERS} watch already, which is the limit", reason="QUOTA_SESSIONS")
        self._watchers += 1
        try:
            told, is_last = None, False
            while not is_last:
                is_last = self._ended.is_set()
                status = self._status(request.service)
                if status != told:
                    told = status
                    yield pb.HealthCheckResponse(status=status)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), WATCH_SECONDS)
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus:
        if service == LIVE:
            return _Status.SERVING
        if service not in READY:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._is_ready() else _Status.NOT_SERVING
