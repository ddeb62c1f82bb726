"""gRPC servers: their options and limits, and the addresses they listen on."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

from telegrad_server.config import Config

MESSAGE_BYTES = 16 << 20

PING_STRIKES = 100
"""So many pings may come too early, between two frames of the server's, before the connection is ended. A client of
gRPC measures its line by up to ten pings a second while it reads, and may read what was sent long before."""

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
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", PING_STRIKES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_idle_ms", 300_000),
]
"""The server's half of the limits that reliability asks for; the client's half is in telegrad.transport.remote."""

CALLS_OF_A_SESSION = 4
"""A stream, a heartbeat, and bulk."""

STREAMS_INSIDE = 4096
"""A gateway puts the calls of all its clients on few connections to a worker."""


def options(config: Config, *, is_inside: bool = False) -> list[tuple[str, int]]:
    """The options of a server; ``is_inside`` for one that only members of the cluster call."""
    found = dict(OPTIONS)
    found["grpc.max_connection_age_ms"] = int(config.connection_age_seconds * 1000)
    found["grpc.max_connection_age_grace_ms"] = int(config.connection_grace_seconds * 1000)
    if is_inside:
        found["grpc.max_concurrent_streams"] = STREAMS_INSIDE
        found["grpc.http2.max_ping_strikes"] = 0  # nobody inside needs to be kept from pinging
        del found["grpc.max_connection_age_ms"], found["grpc.max_connection_idle_ms"]
    return list(found.items())


def new_server(
    config: Config,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    handlers: Sequence[grpc.GenericRpcHandler],
    *,
    is_inside: bool = False,
    most_calls: int = 0,
) -> grpc.aio.Server:
    """A server with handlers, not listening yet, for ``most_calls`` at a time, by default those of a worker."""
    server = grpc.aio.server(
        interceptors=interceptors,
        options=options(config, is_inside=is_inside),
        maximum_concurrent_rpcs=most_calls or CALLS_OF_A_SESSION * config.max_sessions,
    )
    server.add_generic_rpc_handlers(handlers)
    return server


def bind(server: grpc.aio.Server, host: str, port: int, secure: grpc.ServerCredentials | None) -> int:
    """Let the server listen on an address; returns the port. OSError if that is not possible."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = server.add_secure_port(address, secure) if secure is not None else server.add_insecure_port(address)
    except RuntimeError:
        found = 0
    if found == 0:
        raise OSError(f"cannot listen on {address}: another program does, or the address is not this machine's")
    return found


def credentials(cert: str | None, key: str | None) -> grpc.ServerCredentials | None:
    """The credentials in two PEM files, None without them."""
    if cert is None or key is None:
        return None
    with open(cert, "rb") as chain, open(key, "rb") as private:
        return grpc.ssl_server_credentials([(private.read(), chain.read())])
