"""`connect`: a session by address, the same one for the same arguments while it lives."""

from __future__ import annotations

from weakref import WeakValueDictionary

from telegrad import context
from telegrad.errors import SessionError
from telegrad.session import Session
from telegrad.transport import Connection

_LIVE: WeakValueDictionary[object, Session] = WeakValueDictionary()
"""Open sessions by what `connect` was called with, so that a notebook cell may run twice."""


def connect(
    address: str | None = None,
    *,
    token: str | None = None,
    ca_cert: str | None = None,
    lease_seconds: float = 60.0,
    backend: str = "auto",
    seed: int = 0,
    timeout_seconds: float = 10.0,
    new: bool = False,
) -> Session:
    """A session on the server at ``address``, or on one inside this process if there is none.

    ``address`` is ``grpc://host:port``, or ``grpcs://host:port`` for TLS, where ``ca_cert`` is the path of a PEM
    file if the certificate is not from a public authority. ``token`` is sent over TLS or loopback only;
    TELEGRAD_TOKEN and TELEGRAD_TOKEN_FILE are read where it is None. ``lease_seconds`` is how long the server keeps
    everything without hearing from this client. ``backend`` ("auto", "numpy", "cupy") is for an embedded
    server. The same arguments give the same session while it lives; ``new=True`` opens another.

    Raises ConnectionFailed if nobody answers within ``timeout_seconds``, VersionMismatch, AccessError.

    ::

        with tg.connect("grpc://localhost:50051") as session:
            print(tg.asarray([1.0, 2.0]).sum().item())
    """
    key = (address, token, ca_cert, lease_seconds, backend, seed)
    known = _LIVE.get(key)
    if known is not None and known.is_live and not new:
        context.drop_session(known)
        context.push_session(known)
        return known
    if address is None:
        from telegrad.transport.local import LocalConnection

        connection: Connection = LocalConnection(lease_seconds=lease_seconds, backend=backend)
    else:
        from telegrad.transport.remote import GrpcConnection

        connection = GrpcConnection(
            address, token=token, ca_cert=ca_cert, lease_seconds=lease_seconds, timeout_seconds=timeout_seconds
        )
    if not 0 <= seed < 2**64:
        raise SessionError(f"seed {seed} must be from 0 to 2**64 - 1")
    session = Session(connection, key=address or "embedded", seed=seed)
    session.open()
    if not new:
        _LIVE[key] = session
    return session
