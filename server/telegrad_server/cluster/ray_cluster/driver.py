"""The Ray driver, a process of its own and all that imports Ray. It reads commands, writes events, a line of JSON each.

Ray is asked when a worker starts or ends and once a second for its hosts; never for a session, an op or a step. The
actors belong to this driver (none is detached): when it goes, however it goes, Ray ends them, so a gateway that dies
leaves no worker behind, and one that comes back starts workers anew. What a former driver of the namespace has left is
killed first.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TextIO

import ray  # pyright: ignore[reportMissingImports]
import ray.exceptions  # pyright: ignore[reportMissingImports]
from ray.util import list_named_actors  # pyright: ignore[reportMissingImports]
from ray.util.placement_group import (  # pyright: ignore[reportMissingImports]
    PlacementGroup,
    placement_group,
    placement_group_table,
)
from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from telegrad.errors import AccessError, ResourceError, ServerUnavailable, TelegradError, VersionMismatch

from telegrad_server.cluster import tied
from telegrad_server.cluster.launcher import Device, WorkerSpec
from telegrad_server.cluster.nodes import Node, WorkerSize, unmet
from telegrad_server.cluster.ray_cluster.actor import WorkerProcess
from telegrad_server.cluster.ray_cluster.settings import Pool, RaySettings, head_arguments
from telegrad_server.cluster.ray_cluster.start import RAY_COMMAND, own_address, resolve

POLL_SECONDS = 1.0
STOP_SECONDS = 5.0
OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")


@dataclass(slots=True, eq=False)
class _Running:
    spec: WorkerSpec
    actor: Any
    refs: tuple[Any, Any]
    begun: float
    is_up: bool = False
    is_stopping: bool = False


class Driver:
    """Carries out commands until their end, on the thread that calls `run`."""

    def __init__(self, settings: RaySettings, size: WorkerSize, events: TextIO) -> None:
        self._settings = settings
        self._size = size
        self._events = events
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._running: dict[str, _Running] = {}
        self._nodes: list[Node] = []
        self._told: object = None
        self._telling = threading.Lock()
        self._is_closing = False
        self._head: subprocess.Popen[bytes] | None = None
        self._pool: PlacementGroup | None = None
        self._actor_class: Any = ray.remote(WorkerProcess)

    def run(self, commands: TextIO) -> None:
        """Connect, say ``ready``, and obey until the commands end. TelegradError if Ray cannot be had."""
        try:
            self._connect()
            self._pool = self._reserve()
            self._look()
            self._tell("ready")
            if self._head is not None:
                threading.Thread(target=self._guard, args=(self._head,), daemon=True).start()
            threading.Thread(target=self._read, args=(commands,), daemon=True).start()
            self._obey()
        finally:
            self._close()

    # ---- life

    def _connect(self) -> None:
        settings = self._settings
        more: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "namespace": settings.namespace}
        if settings.mode == "local":
            more |= {"address": "local", "include_dashboard": False, "object_store_memory": 80_000_000}
            more |= {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "_temp_dir": settings.folder}
        elif settings.mode == "head":
            more["address"] = self._start_head()
        else:
            more["address"] = resolve(settings.address, wait_seconds=settings.wait_seconds)
        try:
            ray.init(**more)
        except ray.exceptions.AuthenticationError as error:
            raise AccessError(f"Ray refuses this token: {_sentence(error)}", reason="TOKEN_INVALID") from error
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, ray.exceptions.RayError) as error:
            raise _explained(error, settings) from error
        for name in list_named_actors():
            ray.kill(ray.get_actor(name), no_restart=True)

    def _start_head(self) -> str:
        settings = self._settings
        host = own_address(settings.host)
        _wait_until_free(settings.port, settings.wait_seconds)
        command = tied.command(signal.SIGTERM, RAY_COMMAND, head_arguments(settings, host))
        self._head = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + settings.wait_seconds
        while self._head.poll() is None and time.monotonic() < deadline:
            try:
                return resolve(f"{host or '127.0.0.1'}:{settings.port}", wait_seconds=0.2)
            except ServerUnavailable:
                continue
        raise ServerUnavailable(f"Ray's head did not start on port {settings.port}; what it said is in the log above")

    def _guard(self, head: subprocess.Popen[bytes]) -> None:
        """End this process soon after its head: a call of Ray that is under way would wait for it in vain."""
        status = head.wait()
        if not self._is_closing:
            self._tell("failed", kind="unavailable", message=f"Ray's head ended with status {status}")
            tied.end_children()
            os._exit(1)

    def _reserve(self) -> PlacementGroup | None:
        pool, size = self._settings.pool, self._size
        if pool is None:
            return None
        demand = {"CPU": size.cpus or 1.0, "GPU": size.gpus, "memory": float(size.memory_bytes), **size.resources}
        bundle = {name: number for name, number in demand.items() if number}
        return placement_group([bundle] * pool.workers, strategy=pool.strategy.upper())

    def _close(self) -> None:
        self._is_closing = True
        if ray.is_initialized():
            for worker in self._running.values():
                ray.kill(worker.actor, no_restart=True)
            if ending := [worker.refs[1] for worker in self._running.values()]:
                ray.wait(
                    ending, num_returns=len(ending), timeout=2.0
                )  # a head that goes at once takes the news with it
            ray.shutdown()
        if self._head is not None:
            self._head.terminate()
            try:
                self._head.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._head.kill()
        tied.end_children()  # what Ray's processes have left

    # ---- commands and events

    def _read(self, commands: TextIO) -> None:
        for line in commands:
            message = json.loads(line)
            self._inbox.put((message.pop("do"), message))
        self._inbox.put(("close", {}))

    def _tell(self, kind: str, /, **fields: object) -> None:
        with self._telling:
            self._events.write(json.dumps({"is": kind, **fields}) + "\n")
            self._events.flush()

    def _obey(self) -> None:
        looked = time.monotonic()
        while True:
            try:
                kind, *rest = self._inbox.get(timeout=max(0.0, looked + POLL_SECONDS - time.monotonic()))
            except queue.Empty:
                self._look()
                looked = time.monotonic()
                continue
            match kind:
                case "start":
                    self._start(**rest[0])
                case "stop":
                    self._stop(**rest[0])
                case "up":
                    self._up(*rest)
                case "ended":
                    self._ended(*rest)
                case _:
                    return

    # ---- workers

    def _start(
        self, *, spec: dict[str, Any], module: str, arguments: list[str], environ: dict[str, str], bundle: int | None
    ) -> None:
        device = Device(**spec.pop("device"))
        worker = WorkerSpec(device=device, **spec)
        if unmet(worker, self._nodes) is not None:
            self._look()  # the host may have joined since
        if (why := unmet(worker, self._nodes)) is not None:
            self._tell("ended", name=worker.name, reason=why)
            return
        if bundle is not None and self._pool is not None:
            place: Any = PlacementGroupSchedulingStrategy(self._pool, placement_group_bundle_index=bundle)
        else:
            place = NodeAffinitySchedulingStrategy(worker.device.node, soft=False)
        actor: Any = self._actor_class.options(
            name=worker.name,
            num_cpus=worker.cpus,
            num_gpus=worker.gpus,
            memory=worker.memory_bytes or None,
            resources=dict(worker.resources) or None,
            scheduling_strategy=place,
            max_restarts=0,
            max_task_retries=0,
        ).remote()
        refs = (actor.where.remote(), actor.run.remote(module, arguments, environ, worker.cpus, worker.gpus))
        self._running[worker.name] = _Running(worker, actor, refs, time.monotonic())
        for kind, ref in zip(("up", "ended"), refs):
            ref.future().add_done_callback(partial(self._done, kind, worker.name))

    def _done(self, kind: str, name: str, done: Future[Any]) -> None:
        self._inbox.put((kind, name, done))  # on a thread of Ray's

    def _stop(self, name: str) -> None:
        if (worker := self._running.get(name)) is not None and not worker.is_stopping:
            worker.is_stopping = True
            ray.kill(worker.actor, no_restart=True)

    def _up(self, name: str, done: Future[tuple[str, int]]) -> None:
        if (worker := self._running.get(name)) is not None and done.exception() is None:
            worker.is_up = True
            host, pid = done.result()
            self._tell("up", name=name, host=host, pid=pid)

    def _ended(self, name: str, done: Future[int]) -> None:
        if (worker := self._running.get(name)) is None:
            return
        error = done.exception()
        if worker.is_stopping:
            reason = "it was stopped"
        elif error is None:
            reason = _exit_reason(done.result())
        else:
            self._look()
            reason = self._death(worker, error)
        self._end(name, reason)

    def _death(self, worker: _Running, error: BaseException) -> str:
        if all(node.id != worker.spec.device.node for node in self._nodes):
            return f"its host {worker.spec.device.labels.get('host', worker.spec.device.node)} is gone"
        if isinstance(error, ray.exceptions.ActorUnavailableError):
            return "its process cannot be reached"
        detail = re.search(r"Worker exit detail: ([^.]*)", _sentence(error))
        return f"the process of Ray that held it ended: {detail[1] if detail else _sentence(error)}"

    def _end(self, name: str, reason: str) -> None:
        if (worker := self._running.pop(name, None)) is not None:
            ray.kill(worker.actor, no_restart=True)  # it may live, out of reach
            self._tell("ended", name=name, reason=reason)

    # ---- hosts

    def _look(self) -> None:
        """Tell what has changed of hosts and of the pool; end workers whose host is gone or that never came up."""
        draining = _draining()
        self._nodes = [_node(entry, draining) for entry in ray.nodes() if entry["Alive"]]
        alive = {node.id for node in self._nodes}
        places = {i: node for i, node in self._places().items() if node in alive}
        state = {"nodes": [asdict(node) for node in self._nodes], "places": places}
        if state != self._told:
            self._told = state
            self._tell("nodes", **state)
        late = time.monotonic() - self._settings.start_seconds
        for name, worker in list(self._running.items()):
            if worker.spec.device.node not in alive:
                self._end(name, f"its host {worker.spec.device.labels.get('host', worker.spec.device.node)} is gone")
            elif not worker.is_up and worker.begun < late:
                self._end(name, f"there was no room for it on its host for {self._settings.start_seconds:g} s")

    def _places(self) -> Mapping[int, str]:
        if self._pool is None:
            return {}
        table = placement_group_table(self._pool)
        return table["bundles_to_node_id"] if table["state"] in ("CREATED", "RESCHEDULING") else {}


def _node(entry: Mapping[str, Any], draining: Mapping[str, object]) -> Node:
    resources: dict[str, float] = entry["Resources"]
    return Node(
        entry["NodeID"],
        entry["NodeManagerHostname"],
        cpus=resources.get("CPU", 0.0),
        gpus=resources.get("GPU", 0.0),
        memory_bytes=int(resources.get("memory", 0.0)),
        resources={
            name: number
            for name, number in resources.items()
            if name not in OWN_RESOURCES and not name.startswith(("node:", "bundle_group_")) and "_group_" not in name
        },
        labels={**entry["Labels"], "address": entry["NodeManagerAddress"]},
        is_draining=entry["NodeID"] in draining,
    )


def _draining() -> Mapping[str, object]:
    """The hosts that got SIGTERM and end soon. Ray 2.60 tells them by this private call alone."""
    return ray._private.worker.global_worker.gcs_client.get_draining_nodes()  # pyright: ignore


def _wait_until_free(port: int, wait_seconds: float) -> None:
    """Return once nobody listens on the port: a head that was killed takes a second to go."""
    deadline = time.monotonic() + wait_seconds
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ServerUnavailable(
                        f"Ray's head cannot listen on port {port}: another program does; end it or choose another port"
                    ) from error
        time.sleep(0.1)


def _explained(error: Exception, settings: RaySettings) -> TelegradError:
    """Ray's error of a connection as ours."""
    text = str(error)
    if "Version mismatch" in text:
        versions = " ".join(text.split())
        return VersionMismatch(f"the cluster runs another Ray or Python, which must be equal to the patch: {versions}")
    if settings.mode == "join":
        return ServerUnavailable(
            f"Ray at {settings.address} did not take this driver: either {settings.token_file} does not hold its token,"
            f" or no raylet of that cluster runs on this host; Ray says: {_sentence(error)}"
        )
    return ServerUnavailable(f"Ray could not be started here: {_sentence(error)}")


def _exit_reason(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    hint = ": out of memory?" if status == -signal.SIGKILL else ""
    return f"it was killed by {signal.Signals(-status).name}{hint}"


def _sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:600] or type(error).__name__


KINDS = {AccessError: "access", VersionMismatch: "version", ResourceError: "resource", ServerUnavailable: "unavailable"}
"""How the four errors of a start are named in a ``failed`` event."""


def main() -> int:
    """Read the settings, then commands, from standard input; write events to what was standard output."""
    events = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no event
    first = json.loads(sys.stdin.readline())
    pool = first["settings"].pop("pool")
    settings = RaySettings(**first["settings"], pool=Pool(**pool) if pool else None)
    driver = Driver(settings, WorkerSize(**first["size"]), events)
    tied.adopt()
    try:
        driver.run(sys.stdin)
    except TelegradError as error:
        kind = next((name for cls, name in KINDS.items() if isinstance(error, cls)), "unavailable")
        events.write(json.dumps({"is": "failed", "kind": kind, "message": error.message}) + "\n")
        events.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
