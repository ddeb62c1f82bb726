"""Hosts become devices, and devices workers: by arithmetic alone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telegrad.errors import AccessError, ResourceError
from telegrad_server.cluster.launcher import Device
from telegrad_server.cluster.nodes import (
    Changes,
    Node,
    Strategy,
    WorkerSize,
    changes,
    devices_of,
    rest_seconds,
    shortage,
    spec_for,
    unmet,
)
from telegrad_server.cluster.ray_cluster import RayletSettings, RaySettings, check_ray
from telegrad_server.cluster.ray_cluster.settings import (
    check_token_file,
    environment,
    head_arguments,
    patience,
    raylet_arguments,
    worker_environment,
)

CPU_HOST = Node("a" * 56, "host-a", cpus=4, memory_bytes=8 << 30)
GPU_HOST = Node("b" * 56, "host-b", cpus=8, gpus=2, memory_bytes=64 << 30, resources={"executor": 2})
STRATEGIES: tuple[Strategy, ...] = ("pack", "spread", "strict_pack", "strict_spread")


def test_a_host_without_gpus_is_one_device() -> None:
    (device,) = devices_of(CPU_HOST, WorkerSize())

    assert (device.kind, device.cpus, device.gpus, device.memory_bytes) == ("cpu", 4, 0, 8 << 30)
    assert device.labels["host"] == "host-a"


def test_a_host_is_cut_by_the_cpus_of_a_worker() -> None:
    assert [d.cpus for d in devices_of(CPU_HOST, WorkerSize(cpus=1.5))] == [1.5, 1.5]


def test_each_gpu_is_a_device_with_its_share_of_the_host() -> None:
    devices = devices_of(GPU_HOST, WorkerSize())

    assert [(d.kind, d.gpus, d.cpus, d.memory_bytes) for d in devices] == [("gpu", 1, 4, 32 << 30)] * 2


def test_fractions_share_a_gpu() -> None:
    assert [d.gpus for d in devices_of(GPU_HOST, WorkerSize(gpus=0.4))] == [0.4] * 4


def test_without_gpus_in_its_size_a_worker_leaves_them_alone() -> None:
    assert [d.kind for d in devices_of(GPU_HOST, WorkerSize(gpus=0))] == ["cpu"]


def test_custom_resources_and_labels_choose_hosts() -> None:
    labelled = replace(CPU_HOST, labels={"zone": "x"})

    assert devices_of(CPU_HOST, WorkerSize(resources={"executor": 1})) == ()
    assert len(devices_of(GPU_HOST, WorkerSize(gpus=0.5, resources={"executor": 1}))) == 2
    assert devices_of(CPU_HOST, WorkerSize(labels={"zone": "x"})) == ()
    assert len(devices_of(labelled, WorkerSize(labels={"zone": "x"}))) == 1


def test_a_drained_host_has_no_devices() -> None:
    assert devices_of(replace(GPU_HOST, is_draining=True), WorkerSize()) == ()


def test_a_worker_has_at_most_one_gpu() -> None:
    with pytest.raises(ResourceError, match="2 GPUs cannot be"):
        WorkerSize(gpus=2)


def test_a_shortage_says_what_there_is() -> None:
    assert shortage([CPU_HOST], WorkerSize(cpus=4)) is None
    assert shortage([], WorkerSize()) == "no host of workers is there"
    assert shortage([CPU_HOST], WorkerSize(cpus=8)) == (
        "no host has room for a worker of 8 CPUs: host-a has 4 CPUs, 0 GPUs, 8,589,934,592 bytes of memory"
    )


def test_a_demand_that_can_never_be_met_says_so() -> None:
    (device,) = devices_of(CPU_HOST, WorkerSize())
    greedy = replace(spec_for("worker-1", device), cpus=64, resources={"executor": 1})

    assert unmet(spec_for("worker-1", device), [CPU_HOST]) is None
    assert "wants 64 CPUs and 1 executor, and host-a has 4 CPUs" in str(unmet(greedy, [CPU_HOST]))
    assert "is gone" in str(unmet(greedy, [GPU_HOST]))


node_lists = st.lists(
    st.builds(
        Node,
        id=st.integers(0, 10**6).map(lambda i: f"{i:056d}"[::-1]),
        host=st.just("h"),
        cpus=st.integers(0, 9).map(float),
        gpus=st.integers(0, 3).map(float),
        memory_bytes=st.integers(0, 1 << 40),
        is_draining=st.booleans(),
    ),
    max_size=5,
    unique_by=lambda node: node.id,
)
sizes = st.builds(WorkerSize, cpus=st.sampled_from([0.0, 0.3, 1.0, 3.0]), gpus=st.sampled_from([0.0, 0.25, 1 / 3, 1.0]))


@given(node_lists, sizes)
def test_devices_fit_their_host_and_have_names_of_their_own(nodes: list[Node], size: WorkerSize) -> None:
    for node in nodes:
        devices = devices_of(node, size)

        assert sum(d.cpus for d in devices) <= node.cpus + 1e-6
        assert sum(d.gpus for d in devices) <= node.gpus + 1e-6
        assert sum(d.memory_bytes for d in devices) <= node.memory_bytes
        assert len({d.name for d in devices}) == len(devices)
        assert all(unmet(spec_for("w", d), [node]) is None for d in devices)


@given(node_lists, sizes, st.none() | st.integers(0, 6), st.sampled_from(STRATEGIES), st.data())
def test_changes_lead_to_one_worker_on_each_device_and_then_to_rest(
    nodes: list[Node], size: WorkerSize, most: int | None, strategy: Strategy, data: st.DataObject
) -> None:
    devices = [device for node in nodes for device in devices_of(node, size)]
    names = [*(d.name for d in devices), "gone"]
    running = data.draw(st.dictionaries(st.sampled_from(["w1", "w2", "w3", "w4"]), st.sampled_from(names)))

    todo = changes(devices, running, most=most, strategy=strategy)
    after = {worker: device for worker, device in running.items() if worker not in todo.stop}
    after |= {f"new-{i}": device.name for i, device in enumerate(todo.start)}

    used = list(after.values())
    hosts = [d.node for d in devices if d.name in used]
    assert len(set(used)) == len(used)
    assert "gone" not in used
    assert most is None or len(used) <= most
    assert not {d.name for d in todo.start} & set(running.values())
    if strategy == "strict_pack":
        assert len(set(hosts)) <= 1
    if strategy == "strict_spread":
        assert len(set(hosts)) == len(hosts)
    if strategy in ("pack", "spread"):
        # a device whose worker is being stopped is taken for now
        assert len(used) == min(len(devices), len(devices) if most is None else most)
    if strategy in ("pack", "spread") and most is None:
        assert changes(devices, after, most=most, strategy=strategy) == Changes()


def _device(node: str, i: int) -> Device:
    return Device(f"{node}/cpu{i}", node, "cpu", cpus=1)


def test_spread_takes_hosts_in_turn_and_pack_fills_one_first() -> None:
    devices = [_device(node, i) for node in "ab" for i in range(3)]

    spread = changes(devices, {}, most=4, strategy="spread").start
    packed = changes(devices, {}, most=4, strategy="pack").start

    assert [d.node for d in spread] == ["a", "b", "a", "b"]
    assert [d.node for d in packed] == ["a", "a", "a", "b"]


def test_a_new_host_gets_workers_and_a_drained_one_loses_them() -> None:
    old, new = [_device("a", 0), _device("a", 1)], [_device("b", 0)]
    running = {"w1": "a/cpu0", "w2": "a/cpu1"}

    assert changes([*old, *new], running, most=None, strategy="pack") == Changes(start=(new[0],))
    assert changes(new, running, most=None, strategy="pack") == Changes(start=(new[0],), stop=("w1", "w2"))


def test_a_device_whose_workers_keep_ending_rests() -> None:
    devices = [_device("a", 0), _device("a", 1)]

    assert changes(devices, {}, most=None, strategy="pack", resting={"a/cpu0"}).start == (devices[1],)
    assert [rest_seconds(n) for n in (0, 1, 2, 3, 4, 20)] == [0, 0, 1, 2, 4, 60]


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ResourceError, match=r"install telegrad\[ray\]"):
        check_ray()


def test_a_token_file_is_there_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"

    with pytest.raises(AccessError, match="name its file"):
        check_token_file(None)
    with pytest.raises(AccessError, match="cannot be read"):
        check_token_file(str(path))
    path.write_text("short")
    path.chmod(0o644)
    with pytest.raises(AccessError, match="chmod 600"):
        check_token_file(str(path))
    path.chmod(0o600)
    with pytest.raises(AccessError, match="16 characters"):
        check_token_file(str(path))
    path.write_text("0123456789abcdef")
    assert check_token_file(str(path)) == str(path)


def test_rays_environment_is_explicit_and_takes_nothing_over() -> None:
    found = environment({"RAY_ADDRESS": "elsewhere", "HOME": "/h"}, "/secrets/ray.token", drain_seconds=0)

    assert "RAY_ADDRESS" not in found
    assert found["HOME"] == "/h"
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", "/secrets/ray.token")
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("lease_seconds", [1.0, 10.0, 60.0])
def test_rays_head_gives_no_host_up_before_the_lease_of_its_workers_ends(lease_seconds: float) -> None:
    found = {**environment({}, "/secrets/ray.token", drain_seconds=0), **patience(lease_seconds)}
    check = int(found["RAY_health_check_period_ms"]) + int(found["RAY_health_check_timeout_ms"])

    assert check * int(found["RAY_health_check_failure_threshold"]) >= 1000 * lease_seconds
    assert int(found["RAY_grpc_client_keepalive_timeout_ms"]) >= 1000 * lease_seconds


def test_a_workers_environment_fits_its_device() -> None:
    base = {"RAY_AUTH_TOKEN_PATH": "/secrets/ray.token", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "1"}

    on_cpu = worker_environment(base, cpus=2.5, gpus=0)
    on_half = worker_environment(base, cpus=0.5, gpus=0.5)
    on_whole = worker_environment(base, cpus=4, gpus=1)

    assert on_cpu["CUDA_VISIBLE_DEVICES"] == ""
    assert on_cpu["OMP_NUM_THREADS"] == on_cpu["OPENBLAS_NUM_THREADS"] == "2"
    assert "RAY_AUTH_TOKEN_PATH" not in on_cpu
    assert (on_half["CUDA_VISIBLE_DEVICES"], on_half["CUPY_GPU_MEMORY_LIMIT"]) == ("1", "45%")
    assert on_half["OMP_NUM_THREADS"] == "1"
    assert "CUPY_GPU_MEMORY_LIMIT" not in on_whole


def test_the_head_runs_nothing_and_a_raylet_brings_what_it_is_told() -> None:
    head = head_arguments(RaySettings(mode="head"), "10.0.0.2")
    raylet = raylet_arguments(
        RayletSettings("head:6379", "t", gpus=2, resources={"executor": 1}, labels={"zone": "x"}), "10.0.0.2:6379"
    )

    assert {"--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", "--node-ip-address=10.0.0.2"} <= set(head)
    assert {"--address=10.0.0.2:6379", "--num-gpus=2", '--resources={"executor": 1}', "--labels=zone=x"} <= set(raylet)
    assert not [option for option in raylet if option.startswith("--num-cpus")]
