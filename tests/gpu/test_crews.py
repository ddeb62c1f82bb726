"""Crews of workers on GPUs: the bits of one, by way of host memory on one GPU, over NCCL on two.

Written on machines without a GPU, and not run yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import WorkerLost
from telegrad_server.cluster.collectives import Listener, Member
from telegrad_server.executors import pick_executor
from telegrad_server.executors.direct import KEY_BYTES, agreed, device_of
from telegrad_server.executors.staged import Staged
from telegrad_server.tree import Division, spans

from tests.cluster.conftest import gateway, start_worker
from tests.cluster.inside import inside
from tests.cluster.member import leaf, summed
from tests.cluster.test_crew import digest, train
from tests.cluster.test_shards import Training

pytestmark = pytest.mark.gpu

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int64]


@pytest.fixture(scope="module")
def cp() -> Any:
    """CuPy, where a kernel runs."""
    pick_executor("cupy")
    import cupy

    return cupy


def gpus() -> int:
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount()
    except Exception:
        return 0


TWO = pytest.mark.skipif(gpus() < 2, reason="takes two GPUs")


def work() -> list[bytes]:
    sharded = Training(replicas=4, width=4500)
    return [*train(replicas=3), *train(replicas=4, rows=9), *sharded.steps(2), *sharded.state()]


def alone() -> list[bytes]:
    with tg.connect(backend="cupy", new=True):
        return work()


def test_a_crew_on_one_gpu_has_the_bits_of_one_worker(cp: Any, tmp_path: Path) -> None:
    """Two members share the GPU, which NCCL refuses: by way of page-locked memory."""
    with (
        inside(2, tmp_path / "key", lambda: pick_executor("cupy")) as cluster,
        tg.connect(cluster.address, new=True),
    ):
        found = work()

    assert digest(found) == digest(alone())


@TWO
def test_a_crew_on_two_gpus_has_the_bits_of_one_worker(cp: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    with gateway("--cluster-key-file", str(key)) as running, ExitStack() as stack:
        said: list[str] = []
        for i in range(2):
            gpu = {"CUDA_VISIBLE_DEVICES": str(i)}
            process = start_worker(running.inner, str(key), f"gpu-{i}", "--backend", "cupy", environment=gpu)

            def end(process: Any = process) -> None:
                process.terminate()
                said.append(process.communicate(timeout=30)[1])

            stack.callback(end)
        for i in range(2):
            tg.connect(running.address, worker=f"gpu-{i}", queue_seconds=60, new=True).close()
        with tg.connect(running.address, new=True):
            found = work()
        stack.close()

    assert all("exchanges from GPU to GPU" in each for each in said)
    assert digest(found) == digest(alone())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (7,), (3, 5)])
def test_arrays_come_to_pinned_memory_and_back(cp: Any, shape: tuple[int, ...], dtype: Any) -> None:
    from telegrad_server.executors.cupy_module import Pinned

    pinned = Pinned()
    x = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
    there = cp.asarray(x)
    room = pinned.room(there)
    pinned.bring(there, room)
    back = cp.empty_like(there)
    pinned.take(room, back)

    assert room.tobytes() == x.tobytes() == cp.asnumpy(back).tobytes()


class Team:
    """Members of a group over NCCL, each a thread with a GPU to itself."""

    def __init__(self, size: int, cp: Any) -> None:
        from telegrad_server.executors.cupy_module import Pinned
        from telegrad_server.executors.nccl import NcclDoor

        self.size = size
        self._cp = cp
        self._pool = ThreadPoolExecutor(size)
        self._listeners = [Listener("127.0.0.1", 0, tls=None) for _ in range(size)]
        for listener in self._listeners:
            listener.start()
        members = [Member(f"w{r}", "127.0.0.1", at.port, "") for r, at in enumerate(self._listeners)]
        devices = [device_of(1, f"gpu-{r}") for r in range(size)]

        def join(rank: int) -> Any:
            host = self._listeners[rank].join(
                members, rank=rank, group="g", generation=1, key=bytes(32), timeout_seconds=20
            )
            door = NcclDoor(timeout_seconds=20)
            if size > 1:
                return agreed(host, devices, door, Pinned())
            return door.open(host, door.key(0))

        self.groups = self.each(join)

    def each(self, task: Callable[[int], Any]) -> list[Any]:
        def on_its_gpu(rank: int) -> Any:
            with self._cp.cuda.Device(rank):
                return task(rank)

        return [future.result() for future in [self._pool.submit(on_its_gpu, rank) for rank in range(self.size)]]

    def close(self) -> None:
        self.each(lambda rank: self.groups[rank].close())
        for listener in self._listeners:
            listener.close()
        self._pool.shutdown()


@pytest.fixture(params=[1, pytest.param(2, marks=TWO)])
def team(request: pytest.FixtureRequest, cp: Any) -> Iterator[Team]:
    made = Team(request.param, cp)
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 6, 200_003])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_nccl_have_the_bits_of_the_host(team: Team, cp: Any, count: int, dtype: Any) -> None:
    cuts = [0, 7] if team.size == 1 else [0, 3, 7]
    division = Division(7, tuple(itertools.pairwise(cuts)))
    leaves = {r: (leaf(r, count) / 64).astype(dtype) for r in range(7)}
    expected = summed((0, 7), leaves).astype(dtype)
    assert not any(isinstance(group, Staged) for group in team.groups)

    def task(rank: int) -> list[bool]:
        group = team.groups[rank]
        parts = [cp.asarray(summed(node, leaves)) for node in division.nodes(rank)]
        whole = cp.zeros(count, dtype)
        group.all_reduce(parts, whole, division=division, tag=1)
        first, last = spans(count, team.size)[rank]
        own = cp.zeros(last - first, dtype)
        group.reduce_scatter(parts, own, division=division, tag=2)
        gathered = cp.zeros(count, dtype)
        group.all_gather(own, gathered, tag=3)
        wanted = [expected, expected[first:last], expected]
        found = [whole, own, gathered]
        return [cp.asnumpy(a).tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True)]

    assert team.each(task) == [[True] * 3] * team.size


def test_the_key_is_as_long_as_it_should_be(cp: Any) -> None:
    from telegrad_server.executors.nccl import NcclDoor

    assert len(NcclDoor(timeout_seconds=1).key(0)) == KEY_BYTES


@TWO
def test_a_member_that_breaks_the_group_ends_the_others_wait(cp: Any) -> None:
    team = Team(2, cp)

    def task(rank: int) -> str:
        x = cp.ones(1 << 20, np.float32)
        if rank == 1:
            team.groups[rank].abort("an op failed")
            return ""
        with pytest.raises(WorkerLost) as caught:
            for tag in range(100):
                team.groups[rank].all_reduce([x], x, division=Division.even(2, size=2), tag=tag)
        return caught.value.message

    said = team.each(task)
    team.close()
    assert "an op failed" in said[0]
