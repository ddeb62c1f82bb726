"""How to reach Ray, or how to start it: settings, the environment and the command lines that follow from them. Pure."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from telegrad.errors import AccessError, ResourceError

from telegrad_server.cluster.nodes import Strategy

HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_raylet_liveness_self_check_interval_ms": "2000",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
}
"""A host gives its head up after 10 s, and one started anew after 2 s."""

CHECK_SECONDS = 1.5
"""What a health check takes that nobody answers: its period and its time-out."""


LONGEST_FOLDER = 40


@dataclass(frozen=True, slots=True)
class Pool:
    """A placement group: ``workers`` devices that Ray reserves together, packed or spread over hosts."""

    workers: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Where Ray is. ``local``: started here, for one host. ``head``: the head is started here, and hosts join it.
    ``join``: at ``address``, with a raylet on this host."""

    mode: Literal["local", "head", "join"]
    token_file: str | None = None
    address: str = ""
    host: str = ""
    port: int = 6379
    folder: str = "/tmp/ray"
    namespace: str = "telegrad"
    cpus: int | None = None
    gpus: int | None = None
    pool: Pool | None = None
    wait_seconds: float = 30.0
    start_seconds: float = 60.0
    silence_seconds: float = 10.0
    """A host that is silent for so long is given up; no sooner than its workers' leases end."""


@dataclass(frozen=True, slots=True)
class RayletSettings:
    """What a host brings. None: as many as it has."""

    address: str
    token_file: str
    folder: str = "/tmp/ray"
    host: str = ""
    cpus: int | None = None
    gpus: int | None = None
    memory_bytes: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    wait_seconds: float = 60.0
    drain_seconds: float = 0.0


def check_ray() -> None:
    """Raise ResourceError if Ray is not installed, naming what to install."""
    if importlib.util.find_spec("ray") is None:
        raise ResourceError("Ray is not installed; install telegrad[ray], or run without a Ray cluster")


def check_folder(path: str) -> None:
    """ResourceError for a folder in which Ray cannot make its sockets: a path of one has 107 characters at most."""
    if len(path) > LONGEST_FOLDER:
        raise ResourceError(f"the folder of Ray's sockets, {path}, must have {LONGEST_FOLDER} characters or fewer")


def check_token_file(path: str | None) -> str:
    """The absolute path of a token file. AccessError if there is none, others may read it, or it holds no token."""
    if path is None:
        raise AccessError("Ray wants a token; name its file (telegrad-server init makes one)", reason="TOKEN_MISSING")
    try:
        mode = os.stat(path).st_mode
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(
            f"the file of Ray's token, {path}, cannot be read: {error}", reason="TOKEN_MISSING"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise AccessError(f"the file of Ray's token, {path}, can be read by others; run chmod 600 {path}")
    if len(token) < 16:
        raise AccessError(f"the file of Ray's token, {path}, must hold 16 characters or more", reason="TOKEN_INVALID")
    return os.path.abspath(path)


def environment(base: Mapping[str, str], token_file: str, *, drain_seconds: float) -> dict[str, str]:
    """The environment of Ray's processes: token explicit, nothing reported, nothing of another Ray's."""
    kept = {name: value for name, value in base.items() if not name.startswith("RAY_")}
    return {
        **kept,
        **HEALTH,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": f"{drain_seconds:g}",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_COLOR_PREFIX": "0",
    }


def patience(silence_seconds: float) -> dict[str, str]:
    """The environment of a head that gives a host up once it has been silent for so long."""
    return {
        "RAY_health_check_failure_threshold": str(max(3, math.ceil(silence_seconds / CHECK_SECONDS))),
        "RAY_grpc_client_keepalive_timeout_ms": str(max(3000, round(silence_seconds * 1000))),
    }


def worker_environment(base: Mapping[str, str], *, cpus: float, gpus: float) -> dict[str, str]:
    """The environment of a worker: threads as it has CPUs, a GPU only if it got one, its part of the memory, no Ray."""
    threads = str(max(1, int(cpus)))
    kept = {name: value for name, value in base.items() if not name.startswith("RAY_") and name != "PYTHONBREAKPOINT"}
    found = {**kept, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)}
    if not gpus:
        found["CUDA_VISIBLE_DEVICES"] = ""
    elif gpus < 1:
        # CuPy reads this; a tenth stays for the contexts and libraries of the workers beside this one
        found["CUPY_GPU_MEMORY_LIMIT"] = f"{90 * gpus:.4g}%"
    return found


def head_arguments(settings: RaySettings, host: str) -> list[str]:
    """``ray start`` for a head that runs nothing: no CPUs, no GPUs, no dashboard."""
    return [
        "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false",
        "--include-log-monitor=false", "--num-cpus=0", "--num-gpus=0", "--object-store-memory=80000000",
        f"--port={settings.port}", f"--temp-dir={settings.folder}",
        *([f"--node-ip-address={host}"] if host else []),
    ]  # fmt: skip


def raylet_arguments(settings: RayletSettings, address: str) -> list[str]:
    """``ray start`` for a host of workers."""
    labels = ",".join(f"{key}={value}" for key, value in settings.labels.items())
    options = {
        "num-cpus": settings.cpus,
        "num-gpus": settings.gpus,
        "memory": settings.memory_bytes,
        "resources": json.dumps(dict(settings.resources)) if settings.resources else None,
        "labels": labels or None,
        "node-ip-address": settings.host or None,
    }
    return [
        "start", "--block", "--disable-usage-stats", "--include-log-monitor=false", "--object-store-memory=80000000",
        f"--address={address}", f"--temp-dir={settings.folder}",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
    ]  # fmt: skip
