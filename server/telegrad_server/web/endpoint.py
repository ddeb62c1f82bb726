"""The page's server: a socket, a loop on a thread of its own, and a few threads that ask. gRPC's loop never waits."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from telegrad_server.web.http import Limits, Listener, Request, Response

THREADS = 4
"""So many requests are answered at once; others wait."""

STOP_SECONDS = 5.0


class Site(Protocol):
    """What answers requests. Called by several threads; raises nothing."""

    def answer(self, request: Request) -> Response:
        """The answer to a request."""
        ...

    def refuse(self, status: int, message: str) -> Response:
        """The answer to what is no good request."""
        ...


class Endpoint:
    """A site at an address, until it is closed. OSError if it cannot listen."""

    def __init__(
        self, site: Site, *, host: str, port: int, tls: ssl.SSLContext | None = None, limits: Limits | None = None
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=128)
        self._socket.setblocking(False)
        self._site, self._tls, self._limits = site, tls, limits or Limits()
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http{'s' if tls is not None else ''}://{shown}:{self.port}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telegrad-web", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._is_running.wait()

    def close(self) -> None:
        """Answer no more. Waits for what is being asked, so not on a loop that something asked of it needs."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # the edge: the page is gone, the server is not
            logging.exception("the web page has stopped")

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="telegrad-web") as threads:
            loop = self._loop

            async def answer(request: Request) -> Response:
                return await loop.run_in_executor(threads, self._site.answer, request)

            listener = Listener(self._socket, answer, self._site.refuse, tls=self._tls, limits=self._limits)
            self._is_running.set()
            await listener.run(self._stop)


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS with these PEM files, at least version 1.2. OSError or ssl.SSLError if they are no good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context
