"""The launcher of the gateway's side: a child process drives Ray (`driver`), and is started again when it dies."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from telegrad.errors import AccessError, ResourceError, ServerUnavailable, TelegradError, VersionMismatch

from telegrad_server.cluster.launcher import Device, Ended, WorkerSpec
from telegrad_server.cluster.nodes import Node, WorkerSize, devices_of, shortage
from telegrad_server.cluster.ray_cluster.settings import (
    RaySettings,
    check_folder,
    check_ray,
    check_token_file,
    environment,
    patience,
)

log = logging.getLogger(__name__)

ERRORS = {
    "access": AccessError,
    "version": VersionMismatch,
    "resource": ResourceError,
    "unavailable": ServerUnavailable,
}
CLOSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Program:
    """What a worker's process runs: a module's main with arguments, and variables beside those of its host."""

    module: str
    arguments: Callable[[WorkerSpec], Sequence[str]]
    environ: Mapping[str, str]


class RayLauncher:
    """A `Launcher` whose worker processes are Ray's actors, each on the host of its device."""

    def __init__(self, settings: RaySettings, *, size: WorkerSize, program: Program) -> None:
        self._settings = settings
        self._size = size
        self._program = program
        self._lock = threading.Lock()
        self._driver: subprocess.Popen[str] | None = None
        self._running: set[str] = set()
        self._nodes: tuple[Node, ...] = ()
        self._places: Mapping[int, str] = {}
        self._processes: dict[str, tuple[str, int]] = {}
        self._awake = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._shortage: str | None = None

    def open(self, ended: Ended, changed: Callable[[], None]) -> None:
        """Start or join Ray; returns when it answers, which takes seconds.

        ResourceError without Ray, AccessError for a bad token (file), VersionMismatch, ServerUnavailable.
        """
        check_ray()
        check_folder(self._settings.folder)
        if self._settings.mode == "local" and self._settings.token_file is None:
            self._settings = replace(self._settings, token_file=_new_token_file())
        self._settings = replace(self._settings, token_file=check_token_file(self._settings.token_file))
        events = self._begin()
        arguments = (events, ended, changed)
        self._thread = threading.Thread(target=self._watch, args=arguments, name="telegrad-ray", daemon=True)
        self._thread.start()

    def devices(self) -> Sequence[Device]:
        """The devices of all hosts that live and are not being drained; with a pool, its places."""
        with self._lock:
            nodes, places = self._nodes, self._places
        if self._settings.pool is None:
            return [device for node in nodes for device in devices_of(node, self._size)]
        return [_place(i, node, self._size) for i, id in sorted(places.items()) for node in nodes if node.id == id]

    def shortage(self) -> str | None:
        """Why there is no device at all, in a sentence; None if there is one."""
        if self.devices():
            return None
        if self._settings.pool is not None and shortage(self._nodes, self._size) is None:
            pool = self._settings.pool
            return f"Ray has no room yet for {pool.workers} workers ({pool.strategy}) on {len(self._nodes)} hosts"
        return shortage(self._nodes, self._size)

    def nodes(self) -> Sequence[Node]:
        """The hosts that live, as they are."""
        with self._lock:
            return self._nodes

    def workers(self) -> Sequence[str]:
        """The workers that were started and have not ended."""
        with self._lock:
            return sorted(self._running)

    def driver_process(self) -> subprocess.Popen[str]:
        """The process that drives Ray. ServerUnavailable while there is none."""
        with self._lock:
            if self._driver is None:
                raise ServerUnavailable("the process that drives Ray is being started again")
            return self._driver

    def process_of(self, name: str) -> tuple[str, int] | None:
        """The host and the process of Ray that holds a worker, once it is there: for people, and for tests."""
        with self._lock:
            return self._processes.get(name)

    def start(self, spec: WorkerSpec) -> None:
        """Start a worker; ``ended`` tells if that fails, at the latest after ``start_seconds``."""
        bundle = None
        if self._settings.pool is not None:
            bundle = int(spec.device.name.rpartition("/pool")[2])
        with self._lock:
            self._running.add(spec.name)
            is_sent = self._send(
                {
                    "do": "start",
                    "spec": {**asdict(spec), "device": asdict(spec.device)},
                    "module": self._program.module,
                    "arguments": list(self._program.arguments(spec)),
                    "environ": dict(self._program.environ),
                    "bundle": bundle,
                }
            )
        if not is_sent:
            self._awake.set()

    def stop(self, name: str) -> None:
        """Kill a worker, now; ``ended`` tells when it is over. One that is not there is ignored."""
        with self._lock:
            self._send({"do": "stop", "name": name})

    def close(self) -> None:
        """Kill all workers, and Ray where it was started here. Nothing is told any more."""
        with self._lock:
            self._is_closing = True
            driver = self._driver
        self._awake.set()
        if driver is not None:
            assert driver.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                driver.stdin.close()
            if self._thread is None:
                driver.kill()  # it is not ready yet, and reads no commands
            try:
                driver.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                driver.kill()  # its head and its local Ray are tied to it
                driver.wait()
        if self._thread is not None:
            self._thread.join()
        if driver is not None:
            _discard(driver)

    # ---- the driver's process

    def _send(self, command: Mapping[str, object]) -> bool:
        if self._driver is None or self._driver.stdin is None or self._driver.stdin.closed:
            return False
        try:
            self._driver.stdin.write(json.dumps(command) + "\n")
            self._driver.stdin.flush()
        except BrokenPipeError:
            return False  # its end is told by the thread that reads
        return True

    def _begin(self) -> Iterator[dict[str, Any]]:
        """Start a driver; returns its further events once it is ready. TelegradError if it cannot be."""
        assert self._settings.token_file is not None
        driver = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.driver"],
            env={
                **environment(os.environ, self._settings.token_file, drain_seconds=0.0),
                **patience(self._settings.silence_seconds),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with self._lock:
            self._driver = driver
            self._send({"settings": asdict(self._settings), "size": asdict(self._size)})
        assert driver.stdout is not None
        events = map(json.loads, driver.stdout)
        for event in events:
            if event["is"] == "ready":
                return events
            if event["is"] == "failed":
                driver.wait()
                _discard(driver)
                raise ERRORS[event["kind"]](event["message"])
            self._take(event)
        _discard(driver)
        raise ServerUnavailable(f"the process that drives Ray ended with status {driver.wait()} before it was ready")

    def _watch(self, events: Iterator[dict[str, Any]], ended: Ended, changed: Callable[[], None]) -> None:
        self._say_shortage()
        changed()
        pause = 0.0
        while True:
            reason = "the process that drives Ray ended"
            for event in events:
                pause = 0.0
                if event["is"] == "failed":
                    reason = event["message"]
                self._take(event)
                if event["is"] == "nodes":
                    self._say_shortage()
                    changed()
                elif event["is"] == "ended":
                    ended(event["name"], event["reason"])
            with self._lock:
                if self._is_closing:
                    return
            log.warning("Ray is lost and all its workers with it: %s; it is started or joined again", reason)
            events = self._again(reason, pause, ended, changed)
            if self._is_closing:
                return
            changed()

    def _again(self, reason: str, pause: float, ended: Ended, changed: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """A new driver's events, however long that takes; meanwhile every worker has ended and there is no device."""
        with self._lock:
            if self._driver is not None:
                _discard(self._driver)
            self._driver, self._nodes, self._places = None, (), {}
        changed()
        while True:
            with self._lock:
                lost, self._running = sorted(self._running), set()
                self._processes.clear()
            for name in lost:
                ended(name, reason)
            self._awake.wait(pause)
            self._awake.clear()
            with self._lock:
                if self._is_closing:
                    return iter(())
                if self._running:
                    continue
            pause = min(LONGEST_PAUSE_SECONDS, max(1.0, 2 * pause))
            try:
                return self._begin()
            except TelegradError as error:
                log.warning("Ray is still lost: %s", error.message)
                with self._lock:
                    self._driver = None

    def _take(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            match event["is"]:
                case "nodes":
                    self._nodes = tuple(Node(**node) for node in event["nodes"])
                    self._places = {int(i): node for i, node in event["places"].items()}
                case "up":
                    self._processes[event["name"]] = (event["host"], event["pid"])
                case "ended":
                    self._running.discard(event["name"])
                    self._processes.pop(event["name"], None)
                case _:
                    pass

    def _say_shortage(self) -> None:
        sentence = self.shortage()
        if sentence is not None and sentence != self._shortage:
            log.warning("no worker can be started: %s", sentence)
        self._shortage = sentence


def _place(index: int, node: Node, size: WorkerSize) -> Device:
    return Device(
        f"{node.id[:12]}/pool{index}",
        node.id,
        "gpu" if size.gpus and node.gpus else "cpu",
        cpus=size.cpus or 1.0,
        gpus=size.gpus,
        memory_bytes=size.memory_bytes,
        resources=dict(size.resources),
        labels={**node.labels, "host": node.host},
    )


def _discard(driver: subprocess.Popen[str]) -> None:
    """Let go of the pipes of a process that has ended."""
    for pipe in (driver.stdin, driver.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _new_token_file() -> str:
    descriptor, path = tempfile.mkstemp(prefix="telegrad-ray-")
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path
