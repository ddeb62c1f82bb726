"""Settings, read once. Every field has its unit in its name; deploy/README.md lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """What an operator can choose."""

    host: str = "127.0.0.1"
    port: int = 50051
    backend: str = "auto"
    lease_seconds: float = 60.0  # the longest lease that a client gets
    max_sessions: int = 256
    max_bytes: int = 1 << 50
    max_tenant_bytes: int = 1 << 50
    max_session_bytes: int = 64 << 30
    max_tensor_bytes: int = 64 << 30
    max_names: int = 1_000_000
    max_graph_nodes: int = 1_000_000
    max_flops: int = 10**16
    cached_functions: int = 1024
    cached_function_bytes: int = 256 << 20
    unheard_events: int = 65_536  # a session whose client lets so many events pile up does nothing more
    unheard_event_bytes: int = 64 << 20
    download_grace_seconds: float = 5.0  # a downloaded tensor is kept so long, in case its last bytes were lost
    connection_age_seconds: float = 1800.0  # then clients are asked to connect anew, which nobody sees
    connection_grace_seconds: float = 70.0
    tls_cert: str | None = None  # path of a PEM file
    tls_key: str | None = None  # path of a PEM file
    token_file: str | None = None  # path of a file with lines "token tenant"
