"""Replicas on several workers: the bits of one worker, whoever carries them, and whoever dies."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import StateLost
from telegrad.transport.remote import GrpcConnection
from telegrad.wire.v1 import sessions_pb2 as pb

from tests.cluster.conftest import Running, gateway, start_worker, wait_for, words
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.slow  # every test has processes of its own


def blobs(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 20)).astype(np.float32), rng.integers(0, 3, rows)


def train(
    *, replicas: int, rows: int = 32, steps: int = 6, width: int = 64, before: Callable[[int], None] = lambda _: None
) -> list[bytes]:
    """Train with dropout and clipping; the bits of every loss and result, and of the parameters in the end."""
    x, y = blobs(rows)
    model = nn.Sequential(nn.Linear(20, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    @tg.function(replicas=replicas)
    def step(x: tg.Tensor, y: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        out = model(x)
        loss = nn.functional.cross_entropy(out, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss, out

    bits: list[bytes] = []
    for i in range(steps):
        before(i)
        bits += [x.numpy().tobytes() for x in step(x, y)]
    return bits + [v.tobytes() for v in model.state_dict().values()]


def digest(bits: list[bytes]) -> str:
    """All of it in a word."""
    return hashlib.sha256(b"".join(bits)).hexdigest()


def embedded(**options: int) -> list[bytes]:
    with tg.connect(backend="numpy", new=True):
        return train(**options)


@pytest.fixture(scope="module")
def three_workers() -> Iterator[Running]:
    """A gateway with three workers, all of them in."""
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        yield running


def others(running: Running, home: str) -> list[psutil.Process]:
    return [process for process in running.workers() if home not in words(process)]


@pytest.mark.parametrize(("replicas", "rows"), [(2, 32), (3, 32), (3, 7), (5, 31), (1, 8)])
def test_replicas_on_workers_have_the_bits_of_one(three_workers: Running, replicas: int, rows: int) -> None:
    with tg.connect(three_workers.address, new=True):
        assert train(replicas=replicas, rows=rows) == embedded(replicas=replicas, rows=rows)


def held_bytes(running: Running) -> list[int]:
    """What each of three workers holds now, as it says itself."""
    found: list[int] = []
    for i in (1, 2, 3):
        with tg.connect(running.address, worker=f"worker-{i}", new=True) as session:
            connection = session.commands.connection
            assert isinstance(connection, GrpcConnection)
            hello = connection._sessions.Hello(pb.HelloRequest(), metadata=connection._metadata)
            found.append(hello.held_bytes)
    return found


def test_functions_with_fewer_replicas_in_between_leave_the_peers_at_work(three_workers: Running) -> None:
    x, _ = blobs(12)
    with tg.connect(three_workers.address, new=True):
        weight = nn.Parameter(np.ones((20, 3), np.float32))

        @tg.function(replicas=3)
        def step(x: tg.Tensor) -> tg.Tensor:
            weight.assign(weight * 0.5)
            return (x @ weight).sum()

        for replicas in (1, 2):
            other = tg.function(lambda x: (x @ weight).sum(), replicas=replicas)
            for _ in range(3):
                step(x).item()
                other(x).item()
            step(x).item()
            assert all(held_bytes(three_workers)), f"peers were let go after a function of {replicas}"


def test_after_an_error_of_an_op_the_peers_are_at_work_again_at_once(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        table = nn.Parameter(np.ones((30, 8), np.float32))

        @tg.function(replicas=3)
        def step(rows: tg.Tensor) -> tg.Tensor:
            table.assign(table * 0.5)
            return tg.take(table, rows, axis=0).sum()

        step(np.arange(6)).item()
        with pytest.raises(IndexError, match="7777"):
            step(np.array([0, 1, 2, 3, 4, 7777])).item()
        step(np.arange(6)).item()

        assert all(held_bytes(three_workers))


def test_results_and_parameters_too_large_for_a_message(three_workers: Running) -> None:
    options = {"replicas": 3, "rows": 6000, "steps": 2, "width": 2000}
    with gateway("--workers", "1", "--worker-cpus", "1") as alone, tg.connect(alone.address, new=True):
        expected = train(**options)  # one thread, as each of the three has: large products are shared among threads
    with tg.connect(three_workers.address, new=True):
        assert train(**options) == expected


def test_a_variable_changed_between_steps_reaches_the_peers(three_workers: Running) -> None:
    def session_bits() -> list[bytes]:
        weight = nn.Parameter(np.ones((20, 3), np.float32))

        @tg.function(replicas=3)
        def step(x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
            loss = ((x @ weight) ** 2).mean()
            loss.backward()
            weight.assign(weight - 0.1 * weight.grad)
            weight.grad = None
            return loss, weight

        x, _ = blobs(12)
        kept = [step(x) for _ in range(2)]  # the old values of the variable stay alive
        weight.assign(weight * 0.5)
        kept.append(step(x))
        return [v.numpy().tobytes() for loss, value in kept for v in (loss, value)] + [weight.numpy().tobytes()]

    with tg.connect(three_workers.address, new=True):
        found = session_bits()
    with tg.connect(backend="numpy", new=True):
        assert found == session_bits()


def test_sessions_whose_crews_cross_all_go_on(three_workers: Running) -> None:
    """Each home is a peer of the others: a worker that waits for a sum lets others compute."""

    def stepper(session: tg.Session) -> Callable[[], tg.Tensor]:
        x, y = blobs(12)
        model = nn.Linear(20, 3)
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        @tg.function(replicas=3)
        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.minimize(loss)
            return loss

        on_server = tg.asarray(x), tg.asarray(y)
        return lambda: step(*on_server)

    with tg.connect(backend="numpy", new=True) as session:
        alone = stepper(session)
        expected = [alone().item() for _ in range(30)]
    sessions = [tg.connect(three_workers.address, worker=f"worker-{i}", new=True) for i in (1, 2, 3)]
    steps: list[Callable[[], tg.Tensor]] = []
    for session in sessions:
        tg.context.drop_session(session)
        tg.context.push_session(session)
        steps.append(stepper(session))
    losses = [[step() for step in steps] for _ in range(30)]  # nothing is waited for

    for k in range(3):
        assert [row[k].item() for row in losses] == expected
    for session in reversed(sessions):
        session.close()


def test_an_error_in_a_peers_rows_names_the_line_and_leaves_the_variables(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        weight = nn.Parameter(np.ones((10, 4), np.float32))

        @tg.function(replicas=3)
        def step(rows: tg.Tensor) -> tg.Tensor:
            loss = tg.take(weight, rows, axis=0).sum()  # the line
            loss.backward()
            weight.assign(weight - 0.1 * weight.grad)
            weight.grad = None
            return loss

        good, bad = np.array([0, 1, 2, 3, 4, 5]), np.array([0, 1, 2, 3, 4, 77])
        step(good).item()
        before = weight.numpy()
        with pytest.raises(IndexError, match="77") as caught:
            step(bad).item()
        assert "test_crew.py" in str(caught.value.location)  # type: ignore[attr-defined]
        assert np.array_equal(weight.numpy(), before)
        step(good).item()  # and on it goes
        assert not np.array_equal(weight.numpy(), before)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_peer_that_dies_in_mid_training_changes_no_bit(how: signal.Signals) -> None:
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        with tg.connect(running.address, new=True) as session:

            def strike(step: int) -> None:
                if step == 3:
                    others(running, session.home)[0].send_signal(how)

            assert train(replicas=4, before=strike) == embedded(replicas=4)


def test_a_peer_that_is_to_stop_waits_for_sessions_of_its_own_only() -> None:
    with gateway("--workers", "3", "--drain-seconds", "100") as running:
        wait_for(running, 3)
        with tg.connect(running.address, new=True) as session:
            peer = others(running, session.home)[0]

            def strike(step: int) -> None:
                if step == 3:
                    peer.terminate()

            assert train(replicas=4, before=strike) == embedded(replicas=4)
            peer.wait(10)


def test_all_peers_may_die(three_workers: Running) -> None:
    with gateway("--workers", "3") as running:
        wait_for(running, 3)
        with tg.connect(running.address, new=True) as session:

            def strike(step: int) -> None:
                if step in (2, 4):
                    for process in others(running, session.home):
                        process.kill()

            assert train(replicas=4, before=strike) == embedded(replicas=4)


def test_the_home_may_not(three_workers: Running) -> None:
    with gateway("--workers", "2") as running:
        wait_for(running, 2)
        session = tg.connect(running.address, new=True)

        def strike(step: int) -> None:
            if step == 2:
                running.worker(session.home).kill()

        with pytest.raises(StateLost, match="the home of this session, is gone"):
            train(replicas=2, before=strike)
        session.close()
        with tg.connect(running.address, new=True):
            assert train(replicas=2) == embedded(replicas=2)


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.slow
def test_a_worker_that_joins_later_is_used(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    with gateway("--cluster-key-file", str(key), "--worker-lease-seconds", "1") as running:
        home = start_worker(running.inner, str(key), "home")
        with ExitStack() as stack, tg.connect(running.address, worker="home", new=True) as session:
            stack.callback(end, home)
            model = nn.Linear(20, 3)
            optimizer = optim.SGD(model.parameters(), lr=0.1)
            x, y = blobs(12)

            @tg.function(replicas=2)
            def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.minimize(loss)
                return loss

            step(x, y).item()
            stack.callback(end, start_worker(running.inner, str(key), "later"))
            deadline = time.monotonic() + 60

            def is_used() -> bool:
                with tg.connect(running.address, worker="home", new=True) as probe:
                    return any(w.name == "later" and w.busy_seconds for w in probe.commands.connection.greeting.workers)

            while not is_used():
                assert time.monotonic() < deadline, "the new worker was never made a peer"
                step(x, y).item()
            assert session.is_live


def test_nothing_is_left_on_peers_when_the_session_ends(three_workers: Running) -> None:
    with tg.connect(three_workers.address, new=True):
        train(replicas=3)

    assert held_bytes(three_workers) == [0, 0, 0]


@pytest.mark.parametrize("shards", [False, True])
def test_a_long_way_to_the_client_does_not_slow_steps(three_workers: Running, shards: bool) -> None:
    """Steps are sent without waiting for those before, so a round trip is paid once and not for each."""
    delay_seconds, steps = 0.05, 20
    proxy = Proxy(int(three_workers.address.rpartition(":")[2]), delay_seconds=delay_seconds)
    with tg.connect(proxy.address, new=True):
        x, y = blobs(12)
        model = nn.Sequential(nn.Linear(20, 900), nn.ReLU(), nn.Linear(900, 3))
        optimizer = optim.AdamW(model.parameters(), lr=0.01)

        @tg.function(replicas=3, shard_optimizer=shards)
        def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.minimize(loss)
            return loss

        def seconds(work: Callable[[], object]) -> float:
            began = time.perf_counter()
            work()
            return time.perf_counter() - began

        step(x, y).item()
        waited = seconds(lambda: [step(x, y).item() for _ in range(4)])
        followed = seconds(lambda: [step(x, y) for _ in range(steps)][-1].item())

        assert waited > 4 * 2 * delay_seconds  # the proxy is what it says
        assert followed < steps * 2 * delay_seconds
    proxy.close()
