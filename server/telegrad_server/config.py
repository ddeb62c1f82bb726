"""Settings, read once: from the command line, else from the environment. deploy/README.md lists them.

A field is a setting; its option and its variable have its name: ``lease_seconds`` is ``--lease-seconds`` and
``TELEGRAD_SERVER_LEASE_SECONDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
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
    tls_cert: str | None = _setting(None, "PEM file of the certificate chain", metavar="FILE")
    tls_key: str | None = _setting(None, "PEM file of the private key", metavar="FILE")
    role: str = _setting("all-in-one", "what this process is in a cluster", choices=("all-in-one", "gateway", "worker"))
    name: str = _setting("", "a worker's name in its cluster; by default the machine's and the process's")
    gateway: str | None = _setting(None, "the gateway's address for workers, which a worker joins", metavar="HOST:PORT")
    cluster_host: str = _setting("127.0.0.1", "the address on which a gateway listens for its workers")
    cluster_port: int = _setting(50052, "the port for workers; 0 takes a free one")
    cluster_key_file: str | None = _setting(None, "hexadecimal digits that gateway and workers share", metavar="FILE")
    cluster_cert: str | None = _setting(None, "PEM file of a gateway's certificate towards workers", metavar="FILE")
    cluster_cert_key: str | None = _setting(None, "PEM file of its private key", metavar="FILE")
    cluster_ca: str | None = _setting(None, "PEM file of the authority of the cluster's certificates", metavar="FILE")
    advertise_host: str | None = _setting(None, "where a worker says it can be reached; by default its --host")
    direct_host: str | None = _setting(None, "where clients reach a worker without the gateway", metavar="HOST")
    workers: int = _setting(0, "how many workers a gateway makes; 0 means none on this machine, and all of Ray's")
    worker_cpus: float = _setting(0.0, "cores of each worker; 0 divides those that there are")
    worker_gpus: float = _setting(0.0, "GPUs of each worker; 0 takes whole ones, 0.5 puts two workers on one")
    worker_memory_bytes: int = _setting(0, "memory that is set aside for each worker; 0 for none")
    worker_lease_seconds: float = _setting(10.0, "a worker that cannot reach the gateway for so long is given up")
    end_with_input: str = _setting("no", "end when the standard input ends", choices=("no", "yes"))
    token_file: str | None = _setting(None, 'lines "token tenant", readable by the owner only', metavar="FILE")


VARIABLES = "TELEGRAD_SERVER_"


def read_config(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Config:
    """The settings on a command line, else in variables TELEGRAD_SERVER_<NAME>. SystemExit(2) for what is none."""
    parser = argparse.ArgumentParser(prog="telegrad-server", description="Runs graphs for telegrad clients.")
    for setting in fields(Config):
        more: dict[str, Any] = dict(setting.metadata)
        more["help"] += f" (default {setting.default})"
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=str if setting.default is None else type(setting.default),
            default=environ.get(VARIABLES + setting.name.upper(), setting.default),  # text is read like an argument
            **more,
        )
    return Config(**vars(parser.parse_args(arguments)))
