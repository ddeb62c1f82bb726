"""Settings, read once: from the command line, else from the environment. deploy/README.md lists them.

A field is a setting; its option and its variable have its name: ``lease_seconds`` is ``--lease-seconds`` and
``TELEGRAD_SERVER_LEASE_SECONDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any


def _setting(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Config:
    """What an operator can choose. Every quantity has its unit in its name."""

    host: str = _setting("127.0.0.1", "the address to listen on")
    port: int = _setting(50051, "the port; 0 takes a free one, which the first line of output tells")
    backend: str = _setting("auto", "what computes; auto takes a GPU if one works", choices=("auto", "numpy", "cupy"))
    lease_seconds: float = _setting(3600.0, "the longest lease that a client gets")
    max_sessions: int = _setting(256, "open sessions at a time")
    max_bytes: int = _setting(1 << 50, "bytes of tensors in all sessions")
    max_tenant_bytes: int = _setting(1 << 50, "bytes of tensors in one tenant's sessions")
    max_session_bytes: int = _setting(64 << 30, "bytes of tensors in one session")
    max_tensor_bytes: int = _setting(64 << 30, "bytes of one result")
    max_names: int = _setting(1_000_000, "tensors and scopes in one session")
    max_graph_nodes: int = _setting(1_000_000, "nodes of one graph")
    max_flops: int = _setting(10**16, "floating-point operations of one function")
    cached_functions: int = _setting(1024, "functions whose plans are kept")
    cached_function_bytes: int = _setting(256 << 20, "bytes of functions that are kept")
    unheard_events: int = _setting(65_536, "events kept for a client that hears nothing; then its session waits")
    unheard_event_bytes: int = _setting(64 << 20, "bytes of such events")
    download_grace_seconds: float = _setting(
        5.0, "a downloaded tensor is kept so long, in case its last bytes were lost"
    )
    connection_age_seconds: float = _setting(1800.0, "then clients connect anew, which nobody sees")
    connection_grace_seconds: float = _setting(70.0, "so long an old connection may finish what it does")
    secrets_dir: str | None = _setting(
        None, "what init made: tls_cert, tls_key and token_file are in it, if not given", metavar="DIR"
    )
    tls_cert: str | None = _setting(None, "PEM file of the certificate chain", metavar="FILE")
    tls_key: str | None = _setting(None, "PEM file of the private key", metavar="FILE")
    token_file: str | None = _setting(None, 'lines "token tenant", readable by the owner only', metavar="FILE")
    metrics_host: str | None = _setting(
        None, "the address at which Prometheus reads metrics, without TLS and token; none serves none", metavar="HOST"
    )
    metrics_port: int = _setting(9464, "its port; 0 takes a free one")

    def with_secrets(self, name: str) -> Config:
        """With the files of ``secrets_dir`` where none are given; the certificate is that of ``name``."""
        if self.secrets_dir is None:
            return self
        folder = Path(self.secrets_dir)
        found = self
        if self.tls_cert is None and self.tls_key is None:
            found = replace(found, tls_cert=str(folder / f"{name}.pem"), tls_key=str(folder / f"{name}.key"))
        if self.token_file is None:
            found = replace(found, token_file=str(folder / "tokens"))
        return found


VARIABLES = "TELEGRAD_SERVER_"


def read_config(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Config:
    """The settings on a command line, else in variables TELEGRAD_SERVER_<NAME>. SystemExit(2) for what is none."""
    parser = argparse.ArgumentParser(
        prog="telegrad-server",
        description="Runs graphs for telegrad clients.",
        epilog="telegrad-server init DIR makes certificates and tokens; telegrad-server health asks a server.",
    )
    for setting in fields(Config):
        more: dict[str, Any] = dict(setting.metadata)
        more["help"] += f" (default {setting.default})"
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=str if setting.default is None else type(setting.default),
            default=environ.get(VARIABLES + setting.name.upper(), setting.default),  # text is read like an argument
            **more,
        )
    return Config(**vars(parser.parse_args(arguments))).with_secrets("gateway")
