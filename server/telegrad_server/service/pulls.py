"""Takes values from other workers, straight from where they are made to where they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from telegrad.errors import TelegradError, WorkerLost
from telegrad.wire import messages as m
from telegrad.wire import stream
from telegrad.wire.v1 import tensors_pb2 as tensors

from telegrad_server.service.edge import PULL_METHOD
from telegrad_server.service.relay import TICKET_KEY, as_unavailable, cluster_channel, error_of
from telegrad_server.uploads import Upload

KEEPALIVE = (
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
)
"""A worker whose machine is cut off, or that stands still, is noticed within seconds: a whole run waits for it."""

LARGE_BYTES = 8 << 20
"""Room for larger tensors is made beside the event loop."""

FROM = "from"
"""The detail of an error that says from which other worker it came."""


class _Line:
    """A channel to another worker, and how many values are on their way over it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.users = 0
        self.is_broken = False


class Pulls:
    """The values on their way to this worker. Used on the event loop only."""

    def __init__(self, roots: bytes | None) -> None:
        self._roots = roots
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.moved_bytes = 0

    def start(self, pull: m.Pull, begin: Callable[[], Upload]) -> None:
        """Begin to take a value."""
        task = asyncio.get_running_loop().create_task(self._take(pull, begin))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, pull: m.Pull, begin: Callable[[], Upload]) -> None:
        upload: Upload | None = None
        line = self._line(pull.address)
        line.users += 1
        try:
            call: Any = line.channel.unary_stream(PULL_METHOD)(
                tensors.PullTensorRequest().SerializeToString(), metadata=((TICKET_KEY, pull.ticket),)
            )
            async for data in call:  # room is made when the first bytes come: the worker there may still compute
                if upload is None:
                    upload = await self._begun(pull, begin)
                upload.write(stream.decode_chunk(data, tag=1) or b"")
            if upload is None:
                upload = begin()
            await asyncio.to_thread(upload.finish) if pull.type.nbytes > LARGE_BYTES else upload.finish()
            self.moved_bytes += pull.type.nbytes
        except grpc.aio.AioRpcError as error:
            self._failed(pull, upload, begin, self._explained(pull, line, error))
        except TelegradError:  # the session is over, or the name carries the error
            pass
        finally:
            if upload is not None:
                upload.abandon()
            line.users -= 1
            if line.is_broken and not line.users:
                await line.channel.close()

    async def _begun(self, pull: m.Pull, begin: Callable[[], Upload]) -> Upload:
        return await asyncio.to_thread(begin) if pull.type.nbytes > LARGE_BYTES else begin()

    def _explained(self, pull: m.Pull, line: _Line, error: grpc.aio.AioRpcError) -> TelegradError:
        error = as_unavailable(error)
        found = error_of(error)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            found = WorkerLost(f"worker {pull.worker} is lost: {found.message}", worker=pull.worker)
            line.is_broken = True
            if self._lines.get(pull.address) is line:
                del self._lines[pull.address]
        found.details[FROM] = pull.worker
        return found

    def _failed(self, pull: m.Pull, upload: Upload | None, begin: Callable[[], Upload], error: TelegradError) -> None:
        """Whoever waits for the value hears why it does not come."""
        with suppress(TelegradError):
            (upload or begin()).abort(error)

    def _line(self, address: str) -> _Line:
        line = self._lines.get(address)
        if line is None:
            line = self._lines[address] = _Line(cluster_channel(address, self._roots, more=KEEPALIVE))
        return line
