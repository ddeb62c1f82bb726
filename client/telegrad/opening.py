"""`connect`: a session by address, the same one for the same arguments while it lives."""

from __future__ import annotations

import logging
from weakref import WeakValueDictionary

from telegrad import context
from telegrad.errors import SessionError
from telegrad.session import Session
from telegrad.transport import Connection, Demand, OnQueued

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
    worker: str = "",
    memory_bytes: int = 0,
    queue_seconds: float = 600.0,
    on_queued: OnQueued | None = None,
    new: bool = False,
) -> Session:
    """A session on the server at ``address``, or on one inside this process if there is none.

    ``address`` is ``grpc://host:port``, or ``grpcs://host:port`` for TLS, where ``ca_cert`` is the path of a PEM
    file if the certificate is not from a public authority; or the name of a profile that ``telegrad login`` has made,
    which has all three. ``token`` is sent over TLS or loopback only; where it is None, and a profile has none,
    TELEGRAD_TOKEN and TELEGRAD_TOKEN_FILE are read. ``lease_seconds`` is how long the server keeps
    everything without hearing from this client. ``backend`` ("auto", "numpy", "cupy") is what must compute.

    In a cluster the session gets a home: ``worker`` names it, ``memory_bytes`` must be free there. Where all are full
    the session waits in a queue for up to ``queue_seconds``; ``on_queued(position, reason)`` is called each second,
    and a line is logged ("telegrad") if it is None.

    The same arguments give the same session while it lives; ``new=True`` opens another.

    Raises NotFound if there is no such profile, ConnectionFailed if nobody answers within ``timeout_seconds``,
    VersionMismatch, AccessError, QuotaExceeded if no worker will do or none had a place in time.

    ::

        with tg.connect("grpc://localhost:50051") as session:
            print(tg.asarray([1.0, 2.0]).sum().item())
    """
    key = (address, token, ca_cert, lease_seconds, backend, seed, worker, memory_bytes)
    known = _LIVE.get(key)
    if known is not None and known.is_live and not new:
        context.drop_session(known)
        context.push_session(known)
        return known
    if address is not None and ":" not in address:  # a name, since every address has a colon
        from telegrad.profiles import read_profiles

        profile = read_profiles().find(address)
        address, ca_cert = profile.address, ca_cert or profile.ca_cert
        token = profile.find_token() if token is None else token
    if address is None:
        from telegrad.transport.local import LocalConnection

        connection: Connection = LocalConnection(lease_seconds=lease_seconds, backend=backend)
    else:
        from telegrad.transport.remote import GrpcConnection

        connection = GrpcConnection(
            address,
            token=token,
            ca_cert=ca_cert,
            lease_seconds=lease_seconds,
            timeout_seconds=timeout_seconds,
            demand=Demand("" if backend == "auto" else backend, worker, memory_bytes, queue_seconds),
            on_queued=on_queued or _log_queued,
        )
    if not 0 <= seed < 2**64:
        raise SessionError(f"seed {seed} must be from 0 to 2**64 - 1")
    session = Session(connection, key=address or "embedded", seed=seed)
    session.open()
    if not new:
        _LIVE[key] = session
    return session


def _log_queued(position: int, reason: str) -> None:
    logger = logging.getLogger("telegrad")
    logger.info("waiting for a place in the cluster: number %d in the queue, %s", position, reason)
