"""gRPC channels: their options, credentials, and the errors that come through them."""

from __future__ import annotations

from typing import cast

import grpc

from telegrad.errors import AccessError, TelegradError
from telegrad.transport.access import Address
from telegrad.wire import stream
from telegrad.wire.status import from_code, to_exception
from telegrad.wire.v1 import sessions_pb2 as pb

ERROR_KEY = "telegrad-error-bin"

OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),  # gRPC's own waits grow to two minutes; ours end at the lease
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
"""The client's half of the limits that reliability asks for; the server's half is in its service module."""


def error_of(error: grpc.RpcError) -> TelegradError:
    """The exception for a failed call: from the record in its trailing metadata, else from its status."""
    call = cast("grpc.Call", error)
    for key, value in call.trailing_metadata() or ():
        if key == ERROR_KEY:
            record = pb.ErrorRecord()
            record.ParseFromString(cast(bytes, value))
            return to_exception(stream.record_from_proto(record))
    code = call.code()
    return from_code(code.name if code else "UNKNOWN", call.details() or "")


def open_channel(address: Address, ca_cert: str | None, *, name: str | None = None) -> grpc.Channel:
    """A channel to an address; ``name`` is that in the server's certificate, if it is not the address's.

    AccessError if the authority's file cannot be read.
    """
    if not address.is_secure:
        return grpc.insecure_channel(address.target, options=OPTIONS)
    roots = None
    if ca_cert is not None:
        try:
            with open(ca_cert, "rb") as file:
                roots = file.read()
        except OSError as error:
            raise AccessError(f"the certificate {ca_cert} cannot be read: {error.strerror}") from error
    options = OPTIONS if name is None else [*OPTIONS, ("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(address.target, grpc.ssl_channel_credentials(roots), options=options)
