"""Real Ray on this machine: hosts with made-up GPUs, a driver of our own, workers that are real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from telegrad.errors import AccessError, ServerUnavailable, VersionMismatch
from telegrad_server.cluster.launcher import WorkerSpec
from telegrad_server.cluster.nodes import WorkerSize, spec_for
from telegrad_server.cluster.ray_cluster import Pool, Program, RayLauncher, RaySettings
from telegrad_server.cluster.ray_cluster.settings import environment, patience

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

WEB = Program("http.server", lambda spec: ["--bind", "127.0.0.1", "0"], {"TELEGRAD_TEST": "told"})
"""A worker for tests: a real process that stays until it is killed, and starts at once."""

ONE_CPU = WorkerSize(cpus=1)

RAYLET = """
import json, os, sys
from telegrad.errors import TelegradError
from telegrad_server.cluster.ray_cluster import RayletSettings, run_raylet
try:
    sys.exit(run_raylet(RayletSettings(**json.loads(sys.argv[1])), os.environ))
except TelegradError as error:
    print(error.message, file=sys.stderr)
    sys.exit(2)
"""


class Told:
    """What a launcher has told, and waiting for it."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.when: dict[str, float] = {}
        self._condition = threading.Condition()

    def on_ended(self, name: str, reason: str) -> None:
        with self._condition:
            self.ended[name] = reason
            self.when[name] = time.monotonic()
            self._condition.notify_all()

    def on_changed(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """The first true answer of ``condition``."""
        deadline = time.monotonic() + seconds
        with self._condition:
            while not (answer := condition()):
                assert time.monotonic() < deadline, f"not within {seconds} s; ended: {self.ended}"
                self._condition.wait(0.05)
        return answer

    def end_of(self, name: str, seconds: float = 20.0) -> str:
        return self.until(lambda: self.ended.get(name), seconds)


@contextmanager
def launched(
    settings: RaySettings, size: WorkerSize = ONE_CPU, program: Program = WEB
) -> Iterator[tuple[RayLauncher, Told]]:
    launcher, told = RayLauncher(settings, size=size, program=program), Told()
    try:
        launcher.open(told.on_ended, told.on_changed)
        yield launcher, told
    finally:
        launcher.close()


def is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def running(launcher: RayLauncher, told: Told, name: str) -> psutil.Process:
    """The process of a worker, once it is there."""
    _, pid = told.until(lambda: launcher.process_of(name))
    (child,) = told.until(lambda: psutil.Process(pid).children())
    told.until(lambda: "TELEGRAD_TEST" in child.environ())
    return child


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("secrets") / "ray.token"
    path.touch(0o600)
    path.write_text("0123456789abcdef" * 4)
    return str(path)


@pytest.fixture(scope="module")
def cluster(token_file: str) -> Iterator[Any]:
    """A head without devices, two hosts with two GPUs each, one with CPUs only."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(before, token_file, drain_seconds=0) | patience(4.5))
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=4, num_gpus=2, resources={"executor": 1}, wait=False)
    made.add_node(num_cpus=4, num_gpus=2, labels={"zone": "x"}, wait=False)
    made.add_node(num_cpus=2, wait=False)
    made.wait_for_nodes()
    yield made
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def settings(cluster: Any, token_file: str) -> RaySettings:
    return RaySettings(mode="join", address=cluster.address, token_file=token_file)


@pytest.fixture(scope="module")
def shared(settings: RaySettings) -> Iterator[tuple[RayLauncher, Told]]:
    with launched(settings) as both:
        yield both


@pytest.fixture
def ray(shared: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> Iterator[tuple[RayLauncher, Told]]:
    """The launcher that most tests share; their workers have the test's name and are stopped after it."""
    launcher, told = shared
    yield shared
    for name in [name for name in launcher.workers() if name.startswith(request.node.name)]:
        launcher.stop(name)
        told.end_of(name)


def spec(launcher: RayLauncher, name: str, kind: str, index: int = 0) -> WorkerSpec:
    return spec_for(name, [device for device in launcher.devices() if device.kind == kind][index])


def test_hosts_are_devices_and_the_head_is_none(ray: tuple[RayLauncher, Told]) -> None:
    devices = ray[0].devices()

    assert sorted((d.kind, d.gpus, d.cpus) for d in devices) == [("cpu", 0, 1)] * 2 + [("gpu", 1, 1)] * 4
    assert len({d.node for d in devices}) == 3
    assert ray[0].shortage() is None


def test_a_worker_on_gpus_sees_its_own(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> None:
    launcher, told = ray
    names = [f"{request.node.name}-{i}" for i in range(2)]
    for i, name in enumerate(names):
        launcher.start(spec(launcher, name, "gpu", i))

    seen = [running(launcher, told, name).environ() for name in names]

    assert sorted(environ["CUDA_VISIBLE_DEVICES"] for environ in seen) == ["0", "1"]
    assert all("CUPY_GPU_MEMORY_LIMIT" not in environ for environ in seen)


def test_workers_share_a_gpu_by_fractions(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> None:
    launcher, told = ray
    names = [f"{request.node.name}-{i}" for i in range(4)]
    for name in names:
        launcher.start(replace(spec(launcher, name, "gpu"), gpus=0.5, memory_bytes=0))

    seen = [running(launcher, told, name).environ() for name in names]

    assert sorted(environ["CUDA_VISIBLE_DEVICES"] for environ in seen) == ["0", "0", "1", "1"]
    assert {environ["CUPY_GPU_MEMORY_LIMIT"] for environ in seen} == {"45%"}


def test_a_worker_on_cpus_sees_no_gpu(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> None:
    launcher, told = ray
    name = request.node.name
    gpu_host = spec(launcher, name, "gpu")
    launcher.start(replace(gpu_host, gpus=0.0, cpus=3.0))

    environ = running(launcher, told, name).environ()

    assert environ["CUDA_VISIBLE_DEVICES"] == ""
    assert environ["OMP_NUM_THREADS"] == environ["OPENBLAS_NUM_THREADS"] == "3"
    assert environ["TELEGRAD_TEST"] == "told"
    assert not [variable for variable in environ if variable.startswith("RAY_")]


def test_a_worker_runs_on_the_host_of_its_device(
    ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest, cluster: Any
) -> None:
    launcher, told = ray
    for i, device in enumerate(launcher.devices()):
        launcher.start(spec_for(f"{request.node.name}-{i}", device))

    for i, device in enumerate(launcher.devices()):
        worker = running(launcher, told, f"{request.node.name}-{i}")
        raylet = " ".join(psutil.Process(worker.ppid()).parent().cmdline())  # type: ignore[union-attr]
        assert device.node in raylet


def test_custom_resources_are_counted(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> None:
    launcher, told = ray
    with_executor = next(d for d in launcher.devices() if _resources(launcher, d.node))
    first, second, elsewhere = (f"{request.node.name}-{i}" for i in range(3))
    launcher.start(replace(spec_for(first, with_executor), gpus=0, memory_bytes=0, resources={"executor": 1}))
    running(launcher, told, first)
    launcher.start(replace(spec_for(second, with_executor), gpus=0, memory_bytes=0, resources={"executor": 1}))
    other = next(d for d in launcher.devices() if d.node != with_executor.node)
    launcher.start(replace(spec_for(elsewhere, other), resources={"executor": 1}))

    assert "wants 1 executor" in told.end_of(elsewhere)
    assert launcher.process_of(second) is None
    launcher.stop(first)
    running(launcher, told, second)


def _resources(launcher: RayLauncher, node: str) -> bool:
    return any(n.id == node and n.resources.get("executor") for n in launcher.nodes())


def test_a_demand_that_no_host_can_meet_ends_at_once(
    ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest
) -> None:
    launcher, told = ray
    launcher.start(replace(spec(launcher, request.node.name, "cpu"), cpus=64))

    assert "wants 64 CPUs, and" in told.end_of(request.node.name, 3.0)


def test_a_stopped_worker_is_gone(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest) -> None:
    launcher, told = ray
    name = request.node.name
    launcher.start(spec(launcher, name, "cpu"))
    worker = running(launcher, told, name)

    worker.suspend()  # one that hangs is killed as well
    launcher.stop(name)

    assert told.end_of(name, 3.0) == "it was stopped"
    told.until(lambda: is_over(worker), 2.0)


def test_the_end_of_a_worker_is_told_with_its_reason(
    ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest
) -> None:
    launcher, told = ray
    by_signal, by_ray = f"{request.node.name}-1", f"{request.node.name}-2"
    launcher.start(spec(launcher, by_signal, "cpu", 0))
    launcher.start(spec(launcher, by_ray, "cpu", 1))
    first, second = running(launcher, told, by_signal), running(launcher, told, by_ray)

    began = time.monotonic()
    first.kill()
    psutil.Process(second.ppid()).kill()

    assert told.end_of(by_signal, 2.0) == "it was killed by SIGKILL: out of memory?"
    assert "the process of Ray that held it ended" in told.end_of(by_ray, 2.0)
    print("death notices:", {name: f"{1000 * (told.when[name] - began):.0f} ms" for name in (by_signal, by_ray)})
    told.until(lambda: is_over(second), 2.0)


def test_a_worker_that_cannot_start_tells_its_status(settings: RaySettings) -> None:
    with launched(settings, program=Program("http.server", lambda spec: ["--nonsense"], {})) as (launcher, told):
        launcher.start(spec(launcher, "nonsense", "cpu"))

        assert told.end_of("nonsense") == "it ended with status 2"


def test_a_real_server_runs_and_listens(settings: RaySettings) -> None:
    program = Program(
        "telegrad_server.main", lambda spec: ["--port", "0", "--backend", "numpy"], {"TELEGRAD_TEST": "x"}
    )
    with launched(settings, program=program) as (launcher, told):
        launcher.start(spec(launcher, "server", "cpu"))
        worker = running(launcher, told, "server")

        assert told.until(lambda: [c for c in worker.net_connections() if c.status == psutil.CONN_LISTEN])


def test_a_pool_is_packed_or_spread(settings: RaySettings) -> None:
    size = WorkerSize(cpus=1, gpus=1)
    for strategy, hosts in (("strict_pack", 1), ("strict_spread", 2)):
        own = replace(settings, pool=Pool(2, strategy), namespace=strategy)
        with launched(own, size) as (launcher, told):
            devices = told.until(launcher.devices)
            assert len({device.node for device in devices}) == hosts
            for i, device in enumerate(devices):
                launcher.start(spec_for(f"{strategy}-{i}", device))
            seen = [running(launcher, told, f"{strategy}-{i}") for i in range(2)]
            assert len({psutil.Process(worker.ppid()).ppid() for worker in seen}) == hosts


def test_a_pool_without_room_says_so(settings: RaySettings) -> None:
    own = replace(settings, pool=Pool(5, "strict_spread"), namespace="roomless")
    with launched(own) as (launcher, _):
        assert launcher.shortage() == "Ray has no room yet for 5 workers (strict_spread) on 4 hosts"


def test_a_host_joins_and_dies(ray: tuple[RayLauncher, Told], request: pytest.FixtureRequest, cluster: Any) -> None:
    launcher, told = ray
    name = request.node.name
    before = {device.name for device in launcher.devices()}

    began = time.monotonic()
    node = cluster.add_node(num_cpus=1)
    (joined,) = told.until(lambda: [d for d in launcher.devices() if d.name not in before])
    join_seconds = time.monotonic() - began
    launcher.start(spec_for(name, joined))
    worker = running(launcher, told, name)
    began = time.monotonic()
    cluster.remove_node(node, allow_graceful=False)

    assert "is gone" in told.end_of(name, 7.0)
    print(f"a host joined in {join_seconds:.1f} s; its death was told after {told.when[name] - began:.1f} s")
    told.until(lambda: {device.name for device in launcher.devices()} == before, 7.0)
    told.until(lambda: is_over(worker), 2.0)
    launcher.start(spec_for(f"{name}-late", joined))
    assert "is gone" in told.end_of(f"{name}-late", 3.0)


def test_a_driver_that_is_killed_takes_its_workers_along_and_comes_back(settings: RaySettings) -> None:
    with launched(replace(settings, namespace="killed")) as (launcher, told):
        launcher.start(spec(launcher, "before", "cpu"))
        worker = running(launcher, told, "before")

        began = time.monotonic()
        launcher.driver_process().kill()

        assert "the process that drives Ray ended" in told.end_of("before", 2.0)
        told.until(lambda: is_over(worker), 10.0)
        told.until(launcher.devices)
        print(f"the driver was back after {time.monotonic() - began:.1f} s")
        launcher.start(spec(launcher, "after", "cpu"))
        running(launcher, told, "after")


def test_a_second_gateway_ends_what_the_first_has_left(settings: RaySettings) -> None:
    own = replace(settings, namespace="twice")
    with launched(own) as (first, told_first):
        first.start(spec(first, "theirs", "cpu"))
        worker = running(first, told_first, "theirs")
        with launched(own):
            assert "process" in told_first.end_of("theirs")
            told_first.until(lambda: is_over(worker), 2.0)


def test_another_ray_is_refused_in_one_sentence(settings: RaySettings, cluster: Any) -> None:
    gcs = cluster.head_node.get_gcs_client()
    metadata = gcs.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster")
    assert metadata is not None
    other = json.dumps({**json.loads(metadata), "ray_version": "2.59.0"}).encode()
    gcs.internal_kv_put(b"CLUSTER_METADATA", other, True, namespace=b"cluster")
    try:
        with pytest.raises(VersionMismatch, match=r"another Ray or Python.*2\.59\.0"), launched(settings):
            pass
    finally:
        gcs.internal_kv_put(b"CLUSTER_METADATA", metadata, True, namespace=b"cluster")


def test_no_head_is_said_in_one_sentence(token_file: str) -> None:
    settings = RaySettings(mode="join", address="127.0.0.1:9", token_file=token_file, wait_seconds=0.1)

    with pytest.raises(ServerUnavailable, match=r"no Ray head answers at 127\.0\.0\.1:9"), launched(settings):
        pass


def test_without_a_token_nothing_starts() -> None:
    with pytest.raises(AccessError, match="name its file"), launched(RaySettings(mode="head")):
        pass


@pytest.fixture
def folder() -> Iterator[str]:
    """For Ray's sockets: pytest's own folders are too deep for them."""
    with TemporaryDirectory(prefix="tg-", ignore_cleanup_errors=True) as path:
        yield path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start_raylet(settings: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RAYLET, json.dumps(settings)], stderr=subprocess.PIPE, text=True
    )


def test_a_head_and_raylets_with_good_and_wrong_tokens(token_file: str, tmp_path: Path, folder: str) -> None:
    wrong = tmp_path / "wrong.token"
    wrong.touch(0o600)
    wrong.write_text("f" * 64)
    port = free_port()
    settings = RaySettings(mode="head", port=port, token_file=token_file, folder=f"{folder}/head")
    began = time.monotonic()
    with launched(settings, program=Program(WEB.module, WEB.arguments, {"TELEGRAD_TEST": "x"})) as (launcher, told):
        print(f"head and driver up in {time.monotonic() - began:.1f} s")
        assert launcher.shortage() is not None
        raylet = {"address": f"127.0.0.1:{port}", "folder": f"{folder}/a", "cpus": 1, "labels": {"zone": "x"}}
        refused = start_raylet({**raylet, "token_file": str(wrong), "folder": f"{folder}/b"})
        missing = start_raylet({**raylet, "token_file": str(tmp_path / "none")})
        began = time.monotonic()
        good = start_raylet({**raylet, "token_file": token_file})

        (device,) = told.until(launcher.devices)
        print(f"raylet joined after {time.monotonic() - began:.1f} s")
        assert device.labels["zone"] == "x"
        launcher.start(spec_for("worker", device))
        worker = running(launcher, told, "worker")
        processes = psutil.Process(good.pid).children(recursive=True)
        began = time.monotonic()
        good.send_signal(signal.SIGTERM)

        assert "is gone" in told.end_of("worker", 7.0)
        print(f"the end of a raylet by SIGTERM was told after {told.when['worker'] - began:.1f} s")
        assert good.wait(10) == 0
        told.until(lambda: all(is_over(process) for process in (*processes, worker)), 3.0)
        _, missed = missing.communicate(timeout=10)
        assert missing.returncode == 2
        assert "cannot be read" in missed
        _, said = refused.communicate(timeout=60)
        assert refused.returncode == 1
        assert "the token in" in said
        told.until(lambda: not launcher.devices(), 7.0)
        _drain(launcher, told, start_raylet({**raylet, "token_file": token_file, "drain_seconds": 30.0}))
        _kill_the_head(launcher, told)
    assert [p for p in psutil.process_iter() if folder in " ".join(_cmdline(p))] == []


def _drain(launcher: RayLauncher, told: Told, raylet: subprocess.Popen[str]) -> None:
    """SIGTERM takes the host's devices away; its worker runs until it is stopped, and then the host ends."""
    (device,) = told.until(launcher.devices)
    launcher.start(spec_for("drained", device))
    worker = running(launcher, told, "drained")

    raylet.send_signal(signal.SIGTERM)
    told.until(lambda: not launcher.devices(), 5.0)
    assert not is_over(worker)
    assert raylet.poll() is None
    launcher.stop("drained")

    assert told.end_of("drained", 3.0) == "it was stopped"
    assert raylet.wait(15) == 0
    told.until(lambda: len(launcher.nodes()) == 1, 7.0)


def _kill_the_head(launcher: RayLauncher, told: Told) -> None:
    """The launcher starts it again."""
    began = time.monotonic()
    (old,) = launcher.nodes()
    driver = psutil.Process(launcher.driver_process().pid)
    next(p for p in driver.children(recursive=True) if "gcs_server" in " ".join(_cmdline(p))).kill()

    told.until(lambda: not launcher.nodes(), 5.0)
    print(f"the death of the head was seen after {time.monotonic() - began:.1f} s")
    (new,) = told.until(launcher.nodes, 30.0)
    print(f"a new head was there after {time.monotonic() - began:.1f} s")
    assert new.id != old.id


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_wrong_token_is_said_in_one_sentence(settings: RaySettings, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.token"
    wrong.touch(0o600)
    wrong.write_text("f" * 64)

    with (
        pytest.raises((ServerUnavailable, AccessError), match="token"),
        launched(replace(settings, token_file=str(wrong))),
    ):
        pass


def test_a_local_ray_needs_nothing(folder: str) -> None:
    with launched(RaySettings(mode="local", cpus=2, gpus=0, folder=folder)) as (launcher, told):
        launcher.start(spec(launcher, "worker", "cpu"))
        worker = running(launcher, told, "worker")
    told.until(lambda: is_over(worker), 2.0)
