"""Asks a server's health service, for container health checks."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2 as pb
from telegrad.errors import AccessError


def ask(address: str, *, ca_cert: str | None, server_name: str | None, service: str, timeout_seconds: float) -> str:
    """``SERVING``, ``NOT_SERVING``, or why there is no answer. AccessError if the certificate cannot be read."""
    if ca_cert is None:
        channel = grpc.insecure_channel(address)
    else:
        try:
            with open(ca_cert, "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
        except OSError as error:
            raise AccessError(f"the certificate {ca_cert} cannot be read: {error.strerror}") from error
        options = [("grpc.ssl_target_name_override", server_name)] if server_name is not None else []
        channel = grpc.secure_channel(address, credentials, options)
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            pb.HealthCheckRequest.SerializeToString,
            pb.HealthCheckResponse.FromString,
        )
        try:
            answer = check(pb.HealthCheckRequest(service=service), timeout=timeout_seconds)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"  # pyright: ignore[reportAttributeAccessIssue]
        return pb.HealthCheckResponse.ServingStatus.Name(answer.status)
