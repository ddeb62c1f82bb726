"""Settings, read once: from the command line, else from the environment. deploy/README.md lists them.

A field is a setting; its option and its variable have its name: ``lease_seconds`` is ``--lease-seconds`` and
``TELEGRAD_SERVER_LEASE_SECONDS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal


def _setting(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Config:
    """What an operator can choose. Every quantity has its unit in its name."""

    host: str = _setting("127.0.0.1", "the address to listen on")
    port: int = _setting(50051, "the port; 0 takes a free one, which the first line of output tells")
    backend: str = _setting("auto", "what computes; auto takes a GPU if one works", choices=("auto", "numpy", "cupy"))
    native_kernels: str = _setting(
        "auto",
        "whether groups of ops become kernels in C: auto where there is a compiler, off leaves all to NumPy",
        choices=("auto", "off"),
    )
    kernels_dir: str | None = _setting(
        None, "where compiled kernels are kept; none: in a folder of the user's cache", metavar="DIR"
    )
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
        None, "what init made: certificates, keys and tokens are in it, those that are not given", metavar="DIR"
    )
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
    cluster_tls: Literal["on", "off"] = _setting(
        "on",
        "whether sums between workers of several machines are encrypted, where there are certificates; on all the same",
        choices=("on", "off"),
    )
    advertise_host: str | None = _setting(None, "where a worker says it can be reached; by default its --host")
    direct_host: str | None = _setting(None, "where clients reach a worker without the gateway", metavar="HOST")
    workers: int = _setting(0, "how many workers a gateway makes; 0: none on this machine, one on each device of Ray's")
    worker_cpus: float = _setting(0.0, "cores of each worker; 0 divides those that there are")
    worker_gpus: float = _setting(1.0, "GPUs of each worker where a host has some; 0.5 puts two workers on one")
    worker_memory_bytes: int = _setting(0, "memory that Ray sets aside for each worker; 0 for its share of the host")
    worker_resources: str = _setting("", "resources of Ray that each worker takes, as in licence=1,disk=0.5")
    worker_labels: str = _setting("", "labels that a host of Ray's must have to get workers, as in zone=a")
    worker_strategy: Literal["pack", "spread", "strict_pack", "strict_spread"] = _setting(
        "pack",
        "which of Ray's hosts get workers first; strict: all on one host, or one on each, reserved together",
        choices=("pack", "spread", "strict_pack", "strict_spread"),
    )
    worker_port: int = _setting(0, "the port of a host's first worker, the next ones follow; 0 takes free ones")
    ray: Literal["none", "local", "head", "join"] = _setting(
        "none",
        "whether a gateway starts a Ray for this machine, starts the head that other hosts join, or joins one",
        choices=("none", "local", "head", "join"),
    )
    ray_address: str | None = _setting(None, "Ray's head, which a host of workers joins", metavar="HOST:PORT")
    ray_token_file: str | None = _setting(None, "the token of all of Ray's processes", metavar="FILE")
    ray_host: str = _setting("", "this host's address in Ray's network, where it has several")
    ray_port: int = _setting(6379, "the port of Ray's head")
    ray_folder: str = _setting("/tmp/ray", "where Ray keeps its sockets and logs")
    drain_seconds: float = _setting(
        0.0, "a worker that is to stop lets its sessions go on so long, and takes no others"
    )
    worker_lease_seconds: float = _setting(10.0, "a worker that cannot reach the gateway for so long is given up")
    token_file: str | None = _setting(
        None,
        'lines "token tenant" or "token tenant weight", and "read" behind those that may only look; mode 0600',
        metavar="FILE",
    )
    data_dir: str | None = _setting(
        None,
        "where datasets, checkpoints and the journal are kept; none: jobs and datasets are not offered",
        metavar="DIR",
    )
    checkpoint_store: str = _setting(
        "",
        "where checkpoints are kept instead: a folder that other machines mount, or s3://BUCKET/PREFIX",
        metavar="PLACE",
    )
    dataset_roots: str = _setting(
        "", "datasets that all tenants can read, as in digits=/data/digits.npz,faces=/data/faces?size=64x64"
    )
    max_tenant_dataset_bytes: int = _setting(1 << 40, "bytes of datasets that one tenant may put")
    max_tenant_checkpoint_bytes: int = _setting(
        1 << 40, "bytes of checkpoints that one tenant's jobs may come to take; more jobs are refused"
    )
    ended_job_seconds: float = _setting(0.0, "so long after its end a job is removed with its checkpoints; 0: never")
    stray_seconds: float = _setting(86400.0, "so long files stay that the journal knows no job of")
    job_grace_seconds: float = _setting(5.0, "a server that is to stop waits so long for jobs to write a checkpoint")
    journal_backup: str | None = _setting(
        None, "where copies of the journal are written, one over the other", metavar="FILE"
    )
    journal_backup_seconds: float = _setting(3600.0, "how often")
    worker_jobs: int = _setting(1, "jobs that a gateway gives to one worker at a time; others wait in the line")
    cache_dir: str | None = _setting(
        None,
        "where a worker keeps the datasets of its jobs; none: in a folder that goes with it",
        metavar="DIR",
    )
    cache_bytes: int = _setting(64 << 30, "bytes of datasets there; the ones longest unused go")
    metrics_host: str | None = _setting(
        None, "the address at which Prometheus reads metrics, without TLS and token; none serves none", metavar="HOST"
    )
    metrics_port: int = _setting(9464, "its port; 0 takes a free one")
    testing: Literal["on", "off"] = _setting(
        "off", "whether tests may let this server fail; never on where it matters", choices=("on", "off")
    )
    failpoints: str = _setting("", "where it fails, as in job.step=kill:3; only with --testing on")
    web_host: str | None = _setting(
        None, "the address of the web page, with the TLS and the tokens of host; none serves none", metavar="HOST"
    )
    web_port: int = _setting(50080, "its port; 0 takes a free one")

    def with_secrets(self) -> Config:
        """With those files of ``secrets_dir`` that the role needs, where no others are given."""
        if self.secrets_dir is None:
            return self
        folder, found = Path(self.secrets_dir), self
        for settings in _FILES[self.role]:
            if all(getattr(self, setting) is None for setting in settings):
                found = replace(found, **{setting: str(folder / file) for setting, file in settings.items()})
        return found


_OUTSIDE = ({"tls_cert": "gateway.pem", "tls_key": "gateway.key"}, {"token_file": "tokens"})
_MEMBER = ({"cluster_key_file": "cluster.key"}, {"cluster_ca": "ca.pem"}, {"ray_token_file": "ray.token"})
_FILES: Mapping[str, Sequence[Mapping[str, str]]] = {
    "all-in-one": _OUTSIDE,
    "gateway": (*_OUTSIDE, *_MEMBER, {"cluster_cert": "gateway.pem", "cluster_cert_key": "gateway.key"}),
    "worker": ({"tls_cert": "worker.pem", "tls_key": "worker.key"}, *_MEMBER),
}
"""The files of the folder that a role needs. What goes together is taken together or not at all."""


VARIABLES = "TELEGRAD_SERVER_"


def embedded_config(backend: str, environ: Mapping[str, str]) -> Config:
    """The settings of the worker inside a client's process: of a server's variables it reads those of kernels."""
    return Config(
        backend=backend,
        max_sessions=1 << 20,
        native_kernels=environ.get(VARIABLES + "NATIVE_KERNELS", Config.native_kernels),
        kernels_dir=environ.get(VARIABLES + "KERNELS_DIR"),
    )


def read_config(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Config:
    """The settings on a command line, else in variables TELEGRAD_SERVER_<NAME>. SystemExit(2) for what is none."""
    parser = argparse.ArgumentParser(
        prog="telegrad-server",
        description="Runs graphs for telegrad clients.",
        epilog="telegrad-server init DIR makes certificates and tokens; telegrad-server health asks a server;"
        " telegrad-server journal checks or copies what a server has written of its jobs.",
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
    return Config(**vars(parser.parse_args(arguments))).with_secrets()
