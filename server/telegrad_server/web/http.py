"""HTTP/1.1 over h11 on one asyncio loop: requests in, answers out, within limits of size, number and time.

h11 knows the protocol; here are sockets. Who is too slow, or sends too much, is let go: connections are few, and taken
from the backlog only when there is room, TLS handshakes included. A request has no body: what it asks for stands in
its target and its headers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import h11

READ_BYTES = 4 << 10
"""So much is read at once, and so much may a request be longer than its limit."""

LINGER_SECONDS = 1.0
"""So long what a refused caller still sends is read and dropped, so that the refusal is not lost in a reset."""


_REFUSALS = {413: "a request has no body here", 505: "only HTTP/1.0 and HTTP/1.1 are known here"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may take. ``request_seconds`` is for all of a request, ``idle_seconds`` for waiting for its first
    byte, ``answer_seconds`` for taking the answer."""

    connections: int = 128
    header_bytes: int = 8 << 10
    request_seconds: float = 10.0
    idle_seconds: float = 60.0
    answer_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered; ``Content-Length`` follows from the body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Listener:
    """Answers requests at a socket that listens. ``refuse`` makes the answer to what is no good request."""

    def __init__(
        self,
        listening: socket.socket,
        answer: Callable[[Request], Awaitable[Response]],
        refuse: Callable[[int, str], Response],
        *,
        tls: ssl.SSLContext | None,
        limits: Limits,
    ) -> None:
        self._socket, self._answer, self._refuse = listening, answer, refuse
        self._tls, self._limits = tls, limits
        self._connections: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until told to stop; connections are cut then."""
        try:
            self._look()
            await stop.wait()
        finally:
            self._is_stopping = True
            asyncio.get_running_loop().remove_reader(self._socket)
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _look(self) -> None:
        """Accept while there is room; callers beyond it wait in the backlog."""
        if not self._is_stopping:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptors are left
            loop.remove_reader(self._socket)
            loop.call_later(0.2, self._look)
            return
        task = asyncio.create_task(self._connected(accepted))
        self._connections.add(task)
        task.add_done_callback(self._left)
        if len(self._connections) >= self._limits.connections:
            loop.remove_reader(self._socket)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if len(self._connections) == self._limits.connections - 1:
            self._look()

    async def _connected(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=READ_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        accepted.setblocking(False)
        seconds = self._limits.request_seconds if self._tls is not None else None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError):  # no TLS, or not in time
            accepted.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await _Conversation(reader, writer, self._limits).run(self._answer, self._refuse)
        except (OSError, TimeoutError, ssl.SSLError):  # the caller has gone, or is too slow
            pass
        finally:
            transport.abort()  # what was answered has been drained


class _Conversation:
    """One connection: requests and answers in turn."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._reader, self._writer, self._limits = reader, writer, limits
        self._state = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)

    async def run(
        self, answer: Callable[[Request], Awaitable[Response]], refuse: Callable[[int, str], Response]
    ) -> None:
        """Until either side is done."""
        while True:
            try:
                request = await self._request()
            except h11.RemoteProtocolError as error:
                message = "this is no request that HTTP/1.1 knows, or one that is too long"
                await self._send_last(refuse(error.error_status_hint, message))
                return
            if request is None:
                return
            if isinstance(request, int):
                await self._send_last(refuse(request, _REFUSALS[request]))
                return
            await self._send(await answer(request), is_head=request.method == "HEAD")
            if self._state.our_state is not h11.DONE or self._state.their_state is not h11.DONE:
                return
            self._state.start_next_cycle()

    async def _request(self) -> Request | int | None:
        """The next request, a status if it is refused, or None if there is none. RemoteProtocolError, TimeoutError."""
        head = self._next_event()
        if head is h11.NEED_DATA:
            async with asyncio.timeout(self._limits.idle_seconds):
                await self._receive()
        async with asyncio.timeout(self._limits.request_seconds):
            head = await self._event() if head is h11.NEED_DATA else head
            if not isinstance(head, h11.Request):
                return None
            if head.http_version not in (b"1.0", b"1.1"):
                return 505
            if not self._has_no_body(head) or not isinstance(await self._event(), h11.EndOfMessage):
                return 413
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode("latin-1"), head.target.decode("latin-1"), headers)

    @staticmethod
    def _has_no_body(head: h11.Request) -> bool:
        headers = dict(head.headers)
        return b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"

    async def _event(self) -> Any:
        while (event := self._next_event()) is h11.NEED_DATA:
            await self._receive()
        return event

    def _next_event(self) -> Any:
        return self._state.next_event()

    async def _receive(self) -> None:
        self._state.receive_data(await self._reader.read(READ_BYTES))

    async def _send_last(self, response: Response) -> None:
        """Refuse, say that nothing more is read, and wait for the caller to go."""
        headers = {**response.headers, "Connection": "close"}
        await self._send(Response(response.status, response.body, headers))
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(LINGER_SECONDS):
            while await self._reader.read(READ_BYTES):
                pass

    async def _send(self, response: Response, *, is_head: bool = False) -> None:
        if self._state.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [*response.headers.items(), ("Date", formatdate(usegmt=True))]
        if response.status != 304:
            headers.append(("Content-Length", str(len(response.body))))
        data = self._state.send(h11.Response(status_code=response.status, headers=headers)) or b""
        if response.body and not is_head and response.status != 304:
            data += self._state.send(h11.Data(data=response.body)) or b""
        data += self._state.send(h11.EndOfMessage()) or b""
        self._writer.write(data)
        async with asyncio.timeout(self._limits.answer_seconds):
            await self._writer.drain()
            while self._writer.transport.get_write_buffer_size():  # an abort would lose what drain leaves
                await asyncio.sleep(0.005)
