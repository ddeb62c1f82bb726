"""Optimizer state divided over real workers: bits, memory, what is exchanged, checkpoints, and a member's death."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import StateLost
from telegrad.transport.remote import GrpcConnection
from telegrad.wire.v1 import sessions_pb2 as pb

from tests.cluster.conftest import Running, gateway, wait_for
from tests.cluster.test_crew import blobs, others

pytestmark = pytest.mark.slow  # every test has processes of its own

WIDTH = 1501  # 120,080 bytes of the first weight: enough to be divided, and by no number of workers


@pytest.fixture(scope="module")
def three_workers() -> Iterator[Running]:
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        yield running


class Training:
    """A model with its optimizer, and steps of it."""

    def __init__(self, *, replicas: int = 3, clips: bool = False, shards: bool = True, width: int = WIDTH) -> None:
        self.model = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 30))
        self.optimizer = optim.AdamW(self.model.parameters(), lr=0.01)

        @tg.function(replicas=replicas, shard_optimizer=shards)
        def step(x: tg.Tensor, y: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
            out = self.model(x)
            loss = nn.functional.cross_entropy(out, y)
            loss.backward()
            if clips:
                nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
            self.optimizer.step()
            self.optimizer.zero_grad()
            return loss, out

        self._step = step
        self._batch = blobs(13)

    def steps(self, count: int) -> list[bytes]:
        """The bits of losses and results of so many steps."""
        return [x.numpy().tobytes() for _ in range(count) for x in self._step(*self._batch)]

    def state(self) -> list[bytes]:
        """The bits of all parameters and of the optimizer's state."""
        saved = self.optimizer.state_dict()["state"]
        state = [x.tobytes() for own in saved.values() for x in own.values()]
        return [v.tobytes() for v in self.model.state_dict().values()] + state


def whole(work: Callable[[], Any]) -> Any:
    """What the work gives on one worker."""
    with tg.connect(backend="numpy", new=True):
        return work()


def held_bytes(running: Running, name: str) -> int:
    """What the sessions of this tenant hold on a worker."""
    with tg.connect(running.address, worker=name, new=True) as session:
        connection = session.commands.connection
        assert isinstance(connection, GrpcConnection)
        return connection._sessions.Hello(pb.HelloRequest(), metadata=connection._metadata).held_bytes


@pytest.mark.parametrize("clips", [True, False])
def test_divided_state_has_the_bits_of_the_whole_and_can_be_read(three_workers: Running, clips: bool) -> None:
    def work(shards: bool = True) -> list[bytes]:
        training = Training(clips=clips, shards=shards)
        found = training.steps(3) + training.state()
        return found + training.steps(2) + training.state()

    expected = whole(lambda: work(shards=False))
    assert whole(work) == expected
    with tg.connect(three_workers.address, new=True):
        assert work() == expected


def test_each_worker_holds_its_part_of_the_state(three_workers: Running) -> None:
    """Parameters are on every worker, and two moments of each in thirds."""
    held: dict[bool, list[int]] = {}
    for shards in (False, True):
        with tg.connect(three_workers.address, worker="worker-1", new=True):
            training = Training(shards=shards)
            training.steps(2)
            held[shards] = [held_bytes(three_workers, f"worker-{i}") for i in (1, 2, 3)]
    state = 2 * 4 * (20 * WIDTH + 30 * WIDTH)

    for before, after in zip(held[False], held[True], strict=True):
        assert before - after == pytest.approx(state * 2 / 3, rel=0.02)


def test_a_checkpoint_of_divided_state_goes_on_anywhere(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        training = Training()
        training.steps(3)
        model, optimizer = training.model.state_dict(), training.optimizer.state_dict()
        expected = training.steps(2)

    def go_on() -> list[bytes]:
        training = Training()
        training.steps(1)
        training.model.load_state_dict(model)
        training.optimizer.load_state_dict(optimizer)
        return training.steps(2)

    assert whole(go_on) == expected
    with tg.connect(three_workers.address, new=True):
        assert go_on() == expected


def test_divided_state_is_whole_for_whoever_else_reads_it(three_workers: Running) -> None:
    """Another function, one with fewer replicas than there are members, and the former version in a handle."""

    def work() -> list[bytes]:
        training = Training()
        training.steps(2)
        moment = training.optimizer.state[id(next(iter(training.model.parameters())))]["exp_avg"]
        before = moment.detach()
        total = (moment * moment).sum().numpy().tobytes()
        training.steps(1)
        pair = tg.function(lambda x: x.sum() + moment.sum(), replicas=2)
        sums = pair(np.ones((2, 2), np.float32)).numpy().tobytes()
        return [total, sums, before.numpy().tobytes(), moment.numpy().tobytes(), *training.steps(1), *training.state()]

    expected = whole(work)
    with tg.connect(three_workers.address, new=True):
        assert work() == expected


@pytest.mark.parametrize("place", [0, 5])
def test_an_error_in_a_members_rows_loses_no_state(three_workers: Running, place: int) -> None:
    """Be it the home or a peer."""
    bad = np.arange(6)
    bad[place] = 7777

    def work(fails: bool) -> list[bytes]:
        table = nn.Parameter(np.ones((3000, 8), np.float32))
        optimizer = optim.Adam([table], lr=0.1)

        @tg.function(replicas=3, shard_optimizer=True)
        def step(rows: tg.Tensor) -> tg.Tensor:
            loss = (tg.take(table, rows, axis=0) ** 2).mean()
            optimizer.minimize(loss)
            return loss

        good = np.arange(6)
        found = [step(good).numpy().tobytes() for _ in range(2)]
        if fails:
            with pytest.raises(IndexError, match="7777"):
                step(bad).item()
        state = [v.numpy().tobytes() for v in optimizer.state[id(table)].values()]
        return found + state + [step(good).numpy().tobytes(), table.numpy().tobytes()]

    expected = whole(lambda: work(fails=False))
    with tg.connect(three_workers.address, new=True):
        assert work(fails=True) == expected


def test_a_part_that_dies_with_its_worker_is_named_and_never_made_up() -> None:
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        with tg.connect(running.address, new=True) as session:
            training = Training()
            training.steps(2)
            saved = training.model.state_dict(), training.optimizer.state_dict()
            expected = training.steps(1)
            victim = others(running, session.home)[0]
            victim.kill()

            with pytest.raises(StateLost, match=r"shard_optimizer .* worker-.* \(lost: 0\.weight\.exp_avg\)") as caught:
                training.steps(1)
            assert caught.value.details["variables"] == "0.weight.exp_avg"
            with pytest.raises(StateLost, match="checkpoint"):
                training.optimizer.state_dict()
            training.model.state_dict()  # is on every worker
            training.model.load_state_dict(saved[0])
            training.optimizer.load_state_dict(saved[1])
            assert training.steps(1) == expected


def test_nothing_is_left_on_peers_when_the_session_ends(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        Training().steps(2)

    assert [held_bytes(three_workers, f"worker-{i}") for i in (1, 2, 3)] == [0, 0, 0]


def test_former_versions_do_not_pile_up_on_peers(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        training = Training()
        training.steps(3)
        before = [held_bytes(three_workers, f"worker-{i}") for i in (1, 2, 3)]
        training.steps(5)
        after = [held_bytes(three_workers, f"worker-{i}") for i in (1, 2, 3)]

    assert after == pytest.approx(before, rel=0.01)
