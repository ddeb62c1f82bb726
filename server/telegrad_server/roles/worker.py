"""A worker of a cluster: a process that joins a gateway by itself, or with Ray a host that others place workers on."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
from functools import partial
from pathlib import Path

from telegrad.errors import AccessError, ResourceError, TelegradError
from telegrad.wire.status import to_record
from telegrad.wire.v1 import workers_pb2

from telegrad_server.checkpoints import open_depot
from telegrad_server.checkpoints.depot import Depot
from telegrad_server.cluster.collectives import Listener, Tls
from telegrad_server.cluster.groups import Groups, collectives_address
from telegrad_server.cluster.lease import Lease
from telegrad_server.cluster.machine import machine_id
from telegrad_server.cluster.ray_cluster import RayletSettings, check_ray, run_raylet
from telegrad_server.cluster.tickets import Key
from telegrad_server.config import Config
from telegrad_server.datasets import parse_roots
from telegrad_server.datasets.cache import Cache
from telegrad_server.datasets.registered import Registered
from telegrad_server.executors import Executor, pick_executor
from telegrad_server.failpoints import Reached, chosen
from telegrad_server.roles.running import STOP_SECONDS, reachable, say, stopping
from telegrad_server.seats import Neighbours
from telegrad_server.service import Server, TicketAccess
from telegrad_server.service.loads import load_of
from telegrad_server.service.member import Membership
from telegrad_server.service.peers import Recruits
from telegrad_server.service.relay import WORKER_NAME
from telegrad_server.service.shift import WorkShift
from telegrad_server.service.vault import Vault
from telegrad_server.worker import Worker

GIVEN_UP = 75
"""The exit status of a worker that its gateway has given up: it may be started anew."""


def bring_host(config: Config) -> int:
    """Let Ray place workers on this host, until a signal or the end of Ray."""
    check_ray()
    if config.ray_address is None or config.ray_token_file is None:
        raise AccessError("a host of Ray's needs --ray-address HOST:PORT and --ray-token-file FILE")
    settings = RayletSettings(
        address=config.ray_address,
        token_file=config.ray_token_file,
        folder=config.ray_folder,
        host=config.ray_host,
        drain_seconds=config.drain_seconds,
    )
    return run_raylet(settings, os.environ)


async def run(config: Config) -> int:
    """Serve until a signal, or until the gateway gives this worker up."""
    if config.gateway is None or config.cluster_key_file is None:
        raise AccessError("a worker needs --gateway HOST:PORT and --cluster-key-file FILE")
    stop, reached = stopping(), chosen(config.failpoints, testing=config.testing)
    key = Key.from_file(config.cluster_key_file)
    roots = Path(config.cluster_ca).read_bytes() if config.cluster_ca else None
    lease = Lease()
    listener = Listener(config.host, 0, tls=_tls(config))
    listener.start()
    executor = pick_executor(config.backend, kernels=config.native_kernels, kernels_dir=config.kernels_dir)
    executor.expect_kernels()
    groups = Groups(listener, executor)
    recruits = Recruits(asyncio.get_running_loop(), key, roots)
    worker = Worker(config, executor, lease=lease, neighbours=Neighbours(groups, recruits))
    server = Server(worker, config, TicketAccess(key, worker.incarnation), is_inside=True)
    port = await server.start()
    worker.start()
    facts = _facts(config, worker, executor, port, listener)
    status = 0

    def given_up(error: TelegradError) -> None:
        nonlocal status
        logging.warning("given up by the gateway: %s", error.message)
        worker.end_all(to_record(error))
        status = GIVEN_UP
        stop.set()

    drained = asyncio.Event()
    load = partial(_load, worker, executor)
    membership = Membership(config.gateway, key, roots, facts, lease, load=load, given_up=given_up, drained=drained.set)
    recruits.introduce(membership, facts)
    running = asyncio.create_task(membership.run())
    cache_dir = config.cache_dir or await asyncio.to_thread(tempfile.mkdtemp, prefix="telegrad-cache-")
    cache = Cache(Path(cache_dir), most_bytes=config.cache_bytes)
    near = [
        Registered(root, Path(cache_dir) / "registered", blocks=cache) for root in parse_roots(config.dataset_roots)
    ]
    vault = Vault(
        config.gateway,
        key,
        roots,
        worker=(facts.worker, facts.incarnation),
        lease=lease,
        cache=cache,
        near=near,
        depot=await asyncio.to_thread(_depot, config, reached),
        reached=reached,
    )
    shift = WorkShift(worker, vault, lease, reached=reached)
    shift.start()
    say(f"telegrad-server worker {facts.worker} listening on {config.host}:{port}, joining {config.gateway}")
    draining = asyncio.create_task(drained.wait())
    await asyncio.wait((asyncio.create_task(stop.wait()), draining), return_when=asyncio.FIRST_COMPLETED)
    if config.drain_seconds and not status and not drained.is_set():
        membership.drain()
        await asyncio.wait((draining,), timeout=config.drain_seconds)
    draining.cancel()
    running.cancel()
    await asyncio.to_thread(shift.stop)
    await membership.leave()
    if not lease.is_running:
        lease.end()  # a task under way would wait for it
    await server.stop(STOP_SECONDS)
    await asyncio.to_thread(groups.close)
    if config.cache_dir is None:
        await asyncio.to_thread(shutil.rmtree, cache_dir, ignore_errors=True)
    return status


def _depot(config: Config, reached: Reached) -> Depot | None:
    """Where the gateway keeps checkpoints, if this machine reaches it; else they go through the gateway."""
    if not config.checkpoint_store:
        return None
    try:
        return open_depot(config.checkpoint_store, reached)
    except ResourceError as error:
        logging.warning("checkpoints go through the gateway: %s", error.message)
        return None


def _tls(config: Config) -> Tls | None:
    """How sums between machines are encrypted; None where that is not wanted, or there are no certificates."""
    cert, key, ca = config.tls_cert, config.tls_key, config.cluster_ca
    if config.cluster_tls == "off" or cert is None or key is None or ca is None:
        return None
    return Tls.from_files(cert=cert, key=key, ca=ca, server_name=WORKER_NAME)


def _facts(
    config: Config, worker: Worker, executor: Executor, port: int, listener: Listener
) -> workers_pb2.JoinClusterRequest:
    hello = worker.hello()
    host = reachable(config.advertise_host or config.host)
    return workers_pb2.JoinClusterRequest(
        worker=config.name or f"{socket.gethostname()}-{worker.incarnation[:6]}",
        incarnation=worker.incarnation,
        address=f"{host}:{port}",
        direct_address=f"{config.direct_host}:{port}" if config.direct_host else "",
        collectives_address=collectives_address(host, listener),
        machine=machine_id(),
        device=executor.device,
        backend=hello.backend,
        fingerprint=hello.fingerprint,
        version=hello.server_version,
        max_sessions=config.max_sessions,
        max_bytes=config.max_bytes,
    )


def _load(worker: Worker, executor: Executor) -> workers_pb2.Load:
    return load_of(
        sessions=worker.client_sessions,
        held_bytes=worker.statistics()["bytes"],
        busy_seconds=worker.busy_seconds,
        memory=executor.memory(),
        sights=worker.census(),
    )
