"""A worker's half of a membership: it joins the gateway, renews the lease on itself, and stops when it is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from telegrad.errors import TelegradError
from telegrad.wire.v1 import workers_pb2
from telegrad.wire.v1 import workers_pb2_grpc as services

from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.tickets import Key
from telegrad_server.service.relay import cluster_channel, error_of

GATEWAY_NAME = "gateway"
"""The name in the gateway's certificate."""

PAUSE_SECONDS = 0.2
LEAVE_SECONDS = 2.0


class Membership:
    """Keeps a worker in its cluster. ``load`` tells what the worker carries, ``given_up`` hears the end, once."""

    def __init__(
        self,
        gateway: str,
        key: Key,
        roots: bytes | None,
        facts: workers_pb2.JoinClusterRequest,
        lease: Lease,
        *,
        load: Callable[[], workers_pb2.Load],
        given_up: Callable[[TelegradError], None],
        drained: Callable[[], None],
    ) -> None:
        self._channel = cluster_channel(gateway, roots, name=GATEWAY_NAME)
        self._stub: Any = services.WorkersStub(self._channel)
        self._metadata = (("authorization", f"Bearer {key.password}"),)
        self._facts = facts
        self._lease = lease
        self._load = load
        self._given_up = given_up
        self._drained = drained
        self._seconds = 1.0
        self._is_member = False
        self._is_leaving = False
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Join, and renew three times in the length of the lease, until the worker is given up."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._stay()
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """Renew at once when the connection breaks: a gateway that is started anew knows no worker until it joins."""
        while True:
            await self._channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
            self._hurry.set()
            while (state := self._channel.get_state()) is not grpc.ChannelConnectivity.READY:
                await self._channel.wait_for_state_change(state)

    async def _stay(self) -> None:
        while True:
            asked_at = time.monotonic()
            try:
                if self._is_member:
                    await self._renew(asked_at)
                else:
                    await self._join(asked_at)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), self._seconds / 3)
                self._hurry.clear()
            except grpc.aio.AioRpcError as error:
                failure = error_of(error)
                if failure.reason == "WORKER_UNKNOWN":  # a gateway that was started anew
                    self._is_member = False
                elif failure.reason in ("STATE_LOST", "NAME_REUSED", "ACCESS_DENIED"):
                    self._lease.end()
                    self._given_up(failure)
                    return
                await asyncio.sleep(PAUSE_SECONDS)

    async def _join(self, asked_at: float) -> None:
        response = await self._stub.JoinCluster(self._facts, timeout=self._timeout, metadata=self._metadata)
        self._is_member = True
        self._extend(asked_at, response.lease)

    async def _renew(self, asked_at: float) -> None:
        request = workers_pb2.RenewLeaseRequest(
            worker=self._facts.worker,
            incarnation=self._facts.incarnation,
            load=self._load(),
            is_leaving=self._is_leaving,
        )
        response = await self._stub.RenewLease(request, timeout=self._timeout, metadata=self._metadata)
        self._extend(asked_at, response.lease)
        if response.is_draining and not request.load.sessions:
            self._drained()

    @property
    def _timeout(self) -> float:
        return max(1.0, self._seconds / 3)

    def _extend(self, asked_at: float, lease: Any) -> None:
        self._seconds = lease.ToNanoseconds() / 1e9
        self._lease.renew(asked_at=asked_at, seconds=self._seconds)

    async def find_peers(self, request: workers_pb2.FindPeersRequest) -> workers_pb2.FindPeersResponse:
        """Other workers for a session's replicas. AioRpcError if the gateway does not answer."""
        return await self._stub.FindPeers(request, timeout=self._timeout, metadata=self._metadata)

    def drain(self) -> None:
        """Ask for no more sessions; ``drained`` is told once none is left."""
        self._is_leaving = True
        self._hurry.set()

    async def leave(self) -> None:
        """Tell the gateway goodbye, if it listens."""
        request = workers_pb2.LeaveClusterRequest(worker=self._facts.worker, incarnation=self._facts.incarnation)
        with suppress(grpc.aio.AioRpcError):
            await self._stub.LeaveCluster(request, timeout=LEAVE_SECONDS, metadata=self._metadata)
        await self._channel.close()
