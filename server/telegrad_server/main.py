"""``telegrad-server``: wire the parts of a role together, listen, and stop on a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from telegrad.errors import AccessError, ResourceError, TelegradError
from telegrad.wire.status import to_record
from telegrad.wire.v1 import workers_pb2

from telegrad_server.access import Gate, check_exposure
from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.local import LocalLauncher
from telegrad_server.cluster.machine import machine_id
from telegrad_server.cluster.tickets import Key
from telegrad_server.config import Config, read_config
from telegrad_server.executors import pick_executor
from telegrad_server.service import Access, Server, TicketAccess
from telegrad_server.service.gateway import Gateway
from telegrad_server.service.member import Membership
from telegrad_server.worker import Worker

STOP_SECONDS = 5.0
GIVEN_UP = 75
"""The exit status of a worker that its gateway has given up: it may be started anew."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    config = read_config(arguments, os.environ)
    roles = {"all-in-one": _alone, "gateway": _gateway, "worker": _worker}
    try:
        check_exposure(config)
        return asyncio.run(roles[config.role](config))
    except (AccessError, ResourceError) as error:
        print(f"telegrad-server: {error.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"telegrad-server: {error}", file=sys.stderr)
        return 1


# ---- roles


async def _alone(config: Config) -> int:
    """Everything in one process: clients come to the worker directly."""
    stopping = _stopping(config)
    worker = Worker(config, pick_executor(config.backend))
    server = Server(worker, config, Access(_gate(config)))
    port = await server.start()
    worker.start()
    hello = worker.hello()
    notes = "; ".join(hello.warnings) or hello.backend
    _say(f"telegrad-server {hello.server_version} listening on {config.host}:{port} ({notes})")
    await stopping.wait()
    await server.stop(STOP_SECONDS)
    return 0


async def _gateway(config: Config) -> int:
    """The front door. With ``--workers`` it makes workers on this machine."""
    stopping = _stopping(config)
    with tempfile.TemporaryDirectory(prefix="telegrad-") as folder:
        key_file = config.cluster_key_file or _new_key(Path(folder))
        launcher = LocalLauncher(config.workers, *_local_worker(config, key_file)) if config.workers else None
        gateway = Gateway(config, _gate(config), Key.from_file(key_file), launcher)
        port, inner = await gateway.start()
        if launcher is not None:
            launcher.arguments = (*launcher.arguments, "--gateway", f"{_reachable(config.cluster_host)}:{inner}")
        gateway.launch()
        _say(f"telegrad-server gateway listening on {config.host}:{port}, for workers on {config.cluster_host}:{inner}")
        await stopping.wait()
        await gateway.stop(STOP_SECONDS)
        return 0


async def _worker(config: Config) -> int:
    """A worker of a cluster, which it joins by itself."""
    if config.gateway is None or config.cluster_key_file is None:
        raise AccessError("a worker needs --gateway HOST:PORT and --cluster-key-file FILE")
    stopping = _stopping(config)
    key = Key.from_file(config.cluster_key_file)
    lease = Lease()
    worker = Worker(config, pick_executor(config.backend), lease=lease)
    server = Server(worker, config, TicketAccess(key, worker.incarnation), is_inside=True)
    port = await server.start()
    worker.start()
    name = config.name or f"{socket.gethostname()}-{os.getpid()}"
    status = 0

    def given_up(error: TelegradError) -> None:
        nonlocal status
        logging.warning("given up by the gateway: %s", error.message)
        worker.end_all(to_record(error))
        status = GIVEN_UP
        stopping.set()

    host = _reachable(config.advertise_host or config.host)
    membership = Membership(
        config.gateway,
        key,
        Path(config.cluster_ca).read_bytes() if config.cluster_ca else None,
        _facts(config, worker, name, f"{host}:{port}", port),
        lease,
        load=lambda: _load(worker),
        given_up=given_up,
        drained=stopping.set,
    )
    running = asyncio.create_task(membership.run())
    _say(f"telegrad-server worker {name} listening on {config.host}:{port}, joining {config.gateway}")
    await stopping.wait()
    running.cancel()
    await membership.leave()
    await server.stop(STOP_SECONDS)
    return status


# ---- parts


def _gate(config: Config) -> Gate:
    return Gate.from_file(config.token_file) if config.token_file else Gate()


def _new_key(folder: Path) -> str:
    """A key for this run, which only workers that are made here learn."""
    path = folder / "cluster.key"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return str(path)


def _local_worker(config: Config, key_file: str) -> tuple[list[str], Mapping[str, str]]:
    """The options of a worker that the gateway makes on its own machine, and its environment."""
    settings = {
        "backend": config.backend,
        "port": 0,
        "cluster-key-file": key_file,
        "max-sessions": config.max_sessions,
        "max-bytes": config.max_bytes,
        "max-tenant-bytes": config.max_tenant_bytes,
        "max-session-bytes": config.max_session_bytes,
        "max-tensor-bytes": config.max_tensor_bytes,
        "lease-seconds": config.lease_seconds,
    }
    arguments = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    if config.cluster_ca:
        arguments += ["--cluster-ca", config.cluster_ca]
    return arguments, {k: v for k, v in os.environ.items() if not k.startswith("TELEGRAD_SERVER_")}


def _reachable(host: str) -> str:
    """An address to connect to for one to listen on."""
    return {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)


def _facts(config: Config, worker: Worker, name: str, address: str, port: int) -> workers_pb2.JoinClusterRequest:
    hello = worker.hello()
    return workers_pb2.JoinClusterRequest(
        worker=name,
        incarnation=worker.incarnation,
        address=address,
        direct_address=f"{config.direct_host}:{port}" if config.direct_host else "",
        machine=machine_id(),
        backend=hello.backend,
        fingerprint=hello.fingerprint,
        version=hello.server_version,
        max_sessions=config.max_sessions,
        max_bytes=config.max_bytes,
    )


def _load(worker: Worker) -> workers_pb2.Load:
    found = worker.statistics()
    return workers_pb2.Load(sessions=found["sessions"], held_bytes=found["bytes"], busy_seconds=worker.busy_seconds)


def _say(text: str) -> None:
    print(text, flush=True)


def _stopping(config: Config) -> asyncio.Event:
    """Set by a signal, or by the end of the input if that is to count."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_asked = False

    def ask() -> None:
        nonlocal is_asked
        if is_asked:
            os._exit(1)  # the second signal: now
        is_asked = True
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    if config.end_with_input == "yes":
        loop.add_reader(sys.stdin.fileno(), lambda: _read_input(loop, stopping))
    return stopping


def _read_input(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        loop.remove_reader(sys.stdin.fileno())
        stopping.set()


if __name__ == "__main__":
    sys.exit(main())
