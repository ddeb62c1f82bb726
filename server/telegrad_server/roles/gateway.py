"""The gateway: the front door of a cluster, and what makes its workers: children of its own, or Ray."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from telegrad.errors import ResourceError

from telegrad_server.cluster.launcher import Launcher, WorkerSpec
from telegrad_server.cluster.local import LocalLauncher
from telegrad_server.cluster.nodes import WorkerSize
from telegrad_server.cluster.ray_cluster import Pool, Program, RayLauncher, RaySettings
from telegrad_server.cluster.tickets import Key
from telegrad_server.config import Config
from telegrad_server.roles.hardware import ManyWorkers
from telegrad_server.roles.page import open_page
from telegrad_server.roles.running import STOP_SECONDS, catalog, gate, reachable, say, stopping
from telegrad_server.service.gateway import Gateway


async def run(config: Config) -> int:
    """Serve until a signal."""
    stop = stopping()
    with tempfile.TemporaryDirectory(prefix="telegrad-") as folder:
        key_file = config.cluster_key_file or _new_key(Path(folder))
        inner = 0  # known once it listens, which is before a worker is made

        def worker(spec: WorkerSpec) -> Sequence[str]:
            return worker_arguments(config, spec, key_file, inner)

        tokens, datasets = gate(config), catalog(config)
        gateway = Gateway(config, tokens, Key.from_file(key_file), _launcher(config, worker), catalog=datasets)
        port, inner = await gateway.start()
        hardware = ManyWorkers(gateway.members, gateway.queue)
        page = open_page(config, tokens, hardware, jobs=gateway.jobs, datasets=datasets)
        notes = f" (page at {page.address})" if page is not None else ""
        say(
            f"telegrad-server gateway listening on {config.host}:{port}, for workers on {config.cluster_host}:{inner}"
            f"{notes}"
        )
        launching = asyncio.create_task(gateway.launch())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((launching, stopped), return_when=asyncio.FIRST_COMPLETED)
            if launching.done():
                launching.result()  # what the settings have wrong is raised here
            await stopped
        finally:
            launching.cancel()
            stopped.cancel()
            if page is not None:
                await asyncio.to_thread(page.close)
            await gateway.stop(STOP_SECONDS)
    return 0


def _launcher(config: Config, arguments: Callable[[WorkerSpec], Sequence[str]]) -> Launcher | None:
    if config.ray == "none":
        if not config.workers:
            return None
        return LocalLauncher(config.workers, cpus=config.worker_cpus, arguments=arguments, environ=_environ())
    if config.ray == "join" and not config.ray_address:
        raise ResourceError("--ray join needs --ray-address HOST:PORT")
    is_pool = bool(config.workers) and config.worker_strategy.startswith("strict")
    settings = RaySettings(
        mode=config.ray,
        token_file=config.ray_token_file,
        address=config.ray_address or "",
        host=config.ray_host,
        port=config.ray_port,
        folder=config.ray_folder,
        pool=Pool(config.workers, config.worker_strategy) if is_pool else None,
        silence_seconds=config.worker_lease_seconds,
    )
    size = WorkerSize(
        cpus=config.worker_cpus,
        gpus=config.worker_gpus,
        memory_bytes=config.worker_memory_bytes,
        resources={name: _number(name, text) for name, text in _pairs(config.worker_resources)},
        labels=dict(_pairs(config.worker_labels)),
    )
    return RayLauncher(settings, size=size, program=Program("telegrad_server.main", arguments, {}))


def _pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in ``a=1,b=2``. ResourceError if it is not of this form."""
    found: list[tuple[str, str]] = []
    for item in filter(None, text.split(",")):
        name, is_pair, value = item.partition("=")
        if not is_pair:
            raise ResourceError(f"{item!r} must be NAME=VALUE")
        found.append((name.strip(), value.strip()))
    return found


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ResourceError(f"how much of {name} must be a number, not {text!r}") from None


def _new_key(folder: Path) -> str:
    """A key for this run, which only workers that are made here learn."""
    path = folder / "cluster.key"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return str(path)


def worker_arguments(config: Config, spec: WorkerSpec, key_file: str, inner: int) -> list[str]:
    """The options of a worker that is made here, or on a host of Ray's, where it is reached as the host is in Ray."""
    is_near = config.ray == "none"
    is_alone = is_near or config.cluster_host == "127.0.0.1"
    number = int("".join(c for c in spec.device.name.rpartition("/")[2] if c.isdigit()) or 0)
    first_metrics = config.metrics_port + (config.ray in ("none", "local"))  # the gateway has the port on this machine
    near_cache = str(Path(config.data_dir) / "cache") if config.data_dir is not None else None
    settings: dict[str, object] = {
        "role": "worker",
        "name": spec.name,
        "gateway": f"{reachable(config.advertise_host or config.cluster_host)}:{inner}",
        "backend": "numpy" if spec.device.kind == "cpu" else config.backend,
        "native-kernels": config.native_kernels,
        "kernels-dir": config.kernels_dir,
        "host": "127.0.0.1" if is_alone else "0.0.0.0",
        "advertise-host": None if is_alone else spec.device.labels.get("address"),
        "port": config.worker_port + number if config.worker_port else 0,
        "cluster-key-file": key_file,
        "cluster-ca": config.cluster_ca,
        "cluster-tls": config.cluster_tls,
        "metrics-host": config.metrics_host,
        "metrics-port": first_metrics + number if config.metrics_port else 0,
        "max-sessions": config.max_sessions,
        "max-bytes": config.max_bytes,
        "max-tenant-bytes": config.max_tenant_bytes,
        "max-session-bytes": config.max_session_bytes,
        "max-tensor-bytes": config.max_tensor_bytes,
        "max-graph-nodes": config.max_graph_nodes,
        "max-flops": config.max_flops,
        "checkpoint-store": config.checkpoint_store or None,
        "cache-dir": config.cache_dir or (near_cache if is_near else None),
        "cache-bytes": config.cache_bytes,
        "dataset-roots": (config.dataset_roots or None) if is_near else None,
        "lease-seconds": config.lease_seconds,
        "drain-seconds": config.drain_seconds,
    }
    if config.secrets_dir is not None:  # the same folder on every host, with this host's files
        settings |= {"secrets-dir": config.secrets_dir, "cluster-key-file": None, "cluster-ca": None}
    return [word for name, value in settings.items() if value is not None for word in (f"--{name}", str(value))]


def _environ() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TELEGRAD_SERVER_")}
