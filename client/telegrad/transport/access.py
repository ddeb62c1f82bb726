"""Addresses and tokens: what is needed before the first byte is sent."""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass
from urllib.parse import urlsplit

from telegrad.errors import AccessError, ConnectionFailed


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    target: str  # host:port
    is_secure: bool
    is_loopback: bool


def parse_address(address: str) -> Address:
    """The address in ``grpc://host:port`` or ``grpcs://host:port``; ConnectionFailed if it is not one."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme not in ("grpc", "grpcs") or not host or not port or parts.path not in ("", "/"):
        raise ConnectionFailed(f"{address!r} is no address; write grpc://host:port, or grpcs://host:port for TLS")
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(target, parts.scheme == "grpcs", _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_token(token: str | None) -> str | None:
    """The token given, else from TELEGRAD_TOKEN, else from the file that TELEGRAD_TOKEN_FILE names.

    Raises AccessError if that file cannot be read or others may read it.
    """
    if token is not None:
        return token
    if "TELEGRAD_TOKEN" in os.environ:
        return os.environ["TELEGRAD_TOKEN"]
    path = os.environ.get("TELEGRAD_TOKEN_FILE")
    return read_token_file(path) if path is not None else None


def read_token_file(path: str) -> str:
    """The token in a file. AccessError if it cannot be read or others may read it."""
    try:
        mode = os.stat(path).st_mode
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise AccessError(f"the token file {path} cannot be read: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise AccessError(f"the token file {path} can be read by others; run chmod 600 {path}")
    return text.strip()
