"""The first call: who is there. A connection begins with it, and the command line asks it alone, without a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import grpc

from telegrad.errors import AccessError, ConnectionFailed, TelegradError, VersionMismatch
from telegrad.transport import Greeting, WorkerInfo
from telegrad.transport.access import Address, parse_address
from telegrad.transport.channel import error_of, open_channel
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad.wire.v1 import sessions_pb2_grpc as services

PROTOCOL = "v1"

Metadata = list[tuple[str, str | bytes]]


def ask(address: str, *, token: str | None, ca_cert: str | None, timeout_seconds: float) -> Greeting:
    """What the server at an address says of itself. Nothing is opened there, and nothing waits in a queue.

    Raises ConnectionFailed if nobody answers, AccessError if the token is wrong, VersionMismatch.
    """
    where = parse_address(address)
    metadata = access_metadata(where, token)
    with open_channel(where, ca_cert) as channel:
        return hello(channel, where, metadata=metadata, timeout_seconds=timeout_seconds)


def wants_token(address: str, *, ca_cert: str | None, timeout_seconds: float) -> bool:
    """Whether the server refuses callers without a token. Changes nothing there: no session has an empty id."""
    where = parse_address(address)
    with open_channel(where, ca_cert) as channel:
        sessions: Any = services.SessionsStub(channel)
        try:
            sessions.KeepAlive(pb.KeepAliveRequest(), timeout=timeout_seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            if _is_silence(error):
                raise no_answer(error, where, timeout_seconds) from None
            return error_of(error).reason == "TOKEN_MISSING"
    return False


def access_metadata(address: Address, token: str | None) -> Metadata:
    """What goes along with every call. AccessError if the token would cross a network in clear text."""
    if token is None:
        return []
    if not address.is_secure and not address.is_loopback:
        raise AccessError(
            f"a token is not sent in clear text to {address.target}; use grpcs:// (TLS)", reason="ACCESS_DENIED"
        )
    return [("authorization", f"Bearer {token}")]


def hello(
    channel: grpc.Channel,
    address: Address,
    *,
    metadata: Sequence[tuple[str, str | bytes]],
    timeout_seconds: float,
) -> Greeting:
    """What the server behind a channel says of itself; VersionMismatch if it does not speak as we do."""
    from telegrad import __version__

    sessions: Any = services.SessionsStub(channel)
    request = pb.HelloRequest(client_version=__version__, protocols=[PROTOCOL])
    try:
        r = sessions.Hello(request, timeout=timeout_seconds, metadata=metadata, wait_for_ready=True)
    except grpc.RpcError as error:
        raise no_answer(error, address, timeout_seconds) from None
    if PROTOCOL not in r.protocols:
        raise VersionMismatch(
            f"telegrad {__version__} speaks {PROTOCOL}, the server (telegrad {r.server_version}) speaks"
            f" {', '.join(r.protocols)}; upgrade the older of the two"
        )
    workers = [
        WorkerInfo(w.name, w.machine, w.backend, w.state, w.sessions, w.held_bytes, w.busy_seconds) for w in r.workers
    ]
    return Greeting(
        r.server_version,
        r.incarnation,
        frozenset(r.ops),
        r.backend,
        r.fingerprint,
        tuple(r.warnings),
        workers=tuple(workers),
        waiting_sessions=r.waiting_sessions,
        held_bytes=r.held_bytes,
        features=tuple(r.features),
        time=r.time.ToNanoseconds() / 1e9 if r.HasField("time") else None,
    )


def no_answer(error: grpc.RpcError, address: Address, timeout_seconds: float) -> TelegradError:
    """The exception for a first call that failed."""
    if not _is_silence(error):
        return error_of(error)
    hint = (
        "check the address and the certificate (ca_cert=)"
        if address.is_secure
        else "check the address, and use grpcs:// if the server has TLS"
    )
    return ConnectionFailed(
        f"no telegrad server answers at {address.target} within {timeout_seconds:g} s; {hint}"
        f" ({cast('grpc.Call', error).details()})"
    )


def _is_silence(error: grpc.RpcError) -> bool:
    code = cast("grpc.Call", error).code()
    return code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
