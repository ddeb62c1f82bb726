"""Who may come in: addresses that may be bound, and tokens. Only hashes of tokens are kept."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from dataclasses import dataclass

from telegrad.errors import AccessError

from telegrad_server.config import Config

LOCAL_TENANT = "local"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(config: Config) -> None:
    """Raise AccessError for an address beyond loopback without TLS and a token, naming the options that are missing."""
    if (config.tls_cert is None) != (config.tls_key is None):
        raise AccessError("--tls-cert and --tls-key go together")
    tls = {"TLS (--tls-cert FILE --tls-key FILE)": config.tls_cert}
    key = {"the cluster's key (--cluster-key-file FILE)": config.cluster_key_file}
    if config.role == "worker":  # its callers show tickets
        _check(config.host, tls | key)
        return
    for host in filter(None, (config.host, config.web_host)):
        _check(host, tls | {"a token (--token-file FILE)": config.token_file})
    if config.role == "gateway":
        inner = {"TLS (--cluster-cert FILE --cluster-cert-key FILE)": config.cluster_cert}
        _check(config.cluster_host, inner | key)


def _check(host: str, needed: dict[str, str | None]) -> None:
    missing = [what for what, given in needed.items() if given is None]
    if missing and not is_loopback(host):
        raise AccessError(
            f"{host} can be reached from other machines, so it needs {' and '.join(missing)}; or listen on 127.0.0.1"
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose call it is, the weight of the tenant's sessions where they compete for a device, and whether the token is
    only for looking."""

    tenant: str
    weight: float = 1.0
    may_only_read: bool = False


@dataclass(frozen=True)
class Gate:
    """Turns a call's token into a tenant. Without tokens everyone is the local tenant."""

    tenants: tuple[tuple[bytes, Caller], ...] = ()

    @classmethod
    def from_file(cls, path: str) -> Gate:
        """The tokens in a file with lines ``token tenant`` or ``token tenant weight``, and ``read`` behind those of who
        may look and change nothing.

        ``sha256:`` and a token's hash may stand in its place, so that the file gives no token away.
        AccessError if others may read the file, or it holds none.
        """
        try:
            mode = os.stat(path).st_mode
            with open(path, encoding="utf-8") as file:
                lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
        except OSError as error:
            raise AccessError(f"the token file {path} cannot be read: {error.strerror}") from error
        if stat.S_IMODE(mode) & 0o077:
            raise AccessError(f"the token file {path} can be read by others; run chmod 600 {path}")
        for number, parts in enumerate(lines, 1):
            if not _is_entry(parts):
                raise AccessError(
                    f"entry {number} of the token file must be a token of 16 characters or more (or sha256: and 64"
                    " hexadecimal digits), and a tenant; then"
                    " perhaps the tenant's weight, from 0.01 to 100, and the word read for a token that only reads"
                )
        if not lines:
            raise AccessError(f"the token file {path} holds no token")
        return cls(tuple((_digest(token), _caller(tenant, more)) for token, tenant, *more in lines))

    def caller_of(self, authorization: str | None) -> Caller:
        """Who sends an ``authorization`` header. AccessError if the token is missing or wrong."""
        if not self.tenants:
            return Caller(LOCAL_TENANT)
        if not authorization or not authorization.startswith("Bearer "):
            raise AccessError("this server wants a token; pass token= to connect", reason="TOKEN_MISSING")
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).digest()
        found = [caller for known, caller in self.tenants if hmac.compare_digest(known, digest)]
        if not found:
            raise AccessError("the token is not known here", reason="TOKEN_INVALID")
        return found[0]


READ = "read"
"""What stands behind a token that may look and change nothing."""

HASHED = "sha256:"
"""What a token's hash begins with, where it stands in the file in the token's place."""


def _is_entry(words: list[str]) -> bool:
    weight = words[2:-1] if words[2:] and words[-1] == READ else words[2:]
    return len(words) >= 2 and len(weight) <= 1 and _is_token(words[0]) and _is_weight(weight)


def _caller(tenant: str, more: list[str]) -> Caller:
    weight = next((float(word) for word in more if word != READ), 1.0)
    return Caller(tenant, weight, may_only_read=READ in more)


def _is_token(word: str) -> bool:
    if word.startswith(HASHED):
        return re.fullmatch(r"[0-9a-f]{64}", word.removeprefix(HASHED)) is not None
    return len(word) >= 16


def _digest(word: str) -> bytes:
    if word.startswith(HASHED):
        return bytes.fromhex(word.removeprefix(HASHED))
    return hashlib.sha256(word.encode()).digest()


def _is_weight(words: list[str]) -> bool:
    try:
        return all(0.01 <= float(word) <= 100 for word in words)
    except ValueError:
        return False
