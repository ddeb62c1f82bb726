"""Parts of a session on several workers: the bits of one worker, memory where it belongs, and what a death leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import GraphError, IndexRange, NotFound, WorkerLost
from telegrad.models.gpt2 import GPT2Block, GPT2Config
from telegrad.nn import functional as F

from tests.cluster.conftest import Running, gateway, wait_for
from tests.cluster.inside import Inside, inside

pytestmark = pytest.mark.slow  # every test has processes of its own

Places = Sequence[int | None]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """Three workers in this process."""
    with inside(3, tmp_path_factory.mktemp("cluster") / "key") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def processes() -> Iterator[Running]:
    """Three workers, each a process, for tests that leave them alive."""
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        yield running


def on(place: int | None) -> Any:
    return nullcontext() if place is None else tg.on(place)


def mlp(places: Places, *, features: int = 12, hidden: int = 32) -> nn.Module:
    stages: list[nn.Module] = []
    for i, place in enumerate(places):
        with on(place):
            stages.append(
                nn.Sequential(nn.Linear(hidden if i else features, hidden), nn.ReLU(), nn.Dropout(0.1))
                if i < len(places) - 1
                else nn.Linear(hidden, 3)
            )
    return nn.Sequential(*stages)


class GPT(nn.Module):
    """Two blocks; the last stage, with the head, runs on the last of the places."""

    def __init__(self, places: Places, *, is_tied: bool = False) -> None:
        super().__init__()
        config = GPT2Config(vocab_size=17, n_positions=8, n_embd=16, n_layer=2, n_head=2)
        self.last = places[-1]
        with on(places[0]):
            self.tokens, self.places = nn.Embedding(17, 16), nn.Embedding(8, 16)
        with on(places[len(places) // 2 if len(places) > 2 else 0]):
            self.first = GPT2Block(config, tg.float32)
        with on(self.last):
            self.second, self.norm = GPT2Block(config, tg.float32), nn.LayerNorm(16)
            self.head = None if is_tied else nn.Linear(16, 17, bias=False)

    def forward(self, ids: tg.Tensor) -> tg.Tensor:
        x = self.tokens(ids) + self.places(tg.arange(ids.shape[1]))
        x, _ = self.first(x, None, None)
        x, _ = self.second(x, None, None)
        x = self.norm(x)
        if self.head is not None:
            return self.head(x)
        with on(self.last):
            return x @ self.tokens.weight.mT


Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def vectors(rows: int = 10) -> Batch:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 12)).astype(np.float32), rng.integers(0, 3, rows)


def texts(rows: int = 6) -> Batch:
    rng = np.random.default_rng(1)
    return rng.integers(0, 17, (rows, 8)), rng.integers(0, 17, (rows, 8))


def trained(
    model: nn.Module,
    batch: Batch,
    *,
    micro_batches: int = 0,
    clip: float = 0.0,
    steps: int = 3,
    make: Callable[..., optim.Optimizer] = optim.AdamW,
) -> dict[str, bytes]:
    """The bytes of every parameter, of the optimiser's state and of the losses after some steps."""
    optimizer = make(model.parameters(), lr=0.01)

    def loss_of(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        logits = model(x)
        return F.cross_entropy(logits.reshape((-1, logits.shape[-1])), y.reshape((-1,)))

    @tg.function
    def step(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
        piped = tg.pipeline(loss_of, micro_batches=micro_batches) if micro_batches else loss_of
        loss = piped(x, y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    found = {f"loss {i}": step(*batch).numpy().tobytes() for i in range(steps)}
    found |= {name: p.tobytes() for name, p in model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        found |= {f"{i}.{name}": x.tobytes() for name, x in state.items()}
    return found


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [name for name in expected if found[name] != expected[name]]


def embedded(make: Callable[[], dict[str, bytes]]) -> dict[str, bytes]:
    with tg.connect(backend="numpy", new=True):
        return make()


# ---- the bits of one worker


@pytest.mark.parametrize("places", [(0, 1), (1, 2), (0, 1, 2), (2, None, 1)])
@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_an_mlp_in_parts_trains_with_the_bits_of_one_worker(three: Inside, places: Places, clip: float) -> None:
    expected = embedded(lambda: trained(mlp([None] * len(places)), vectors(), clip=clip))

    with tg.connect(three.address, new=True):
        found = trained(mlp(places), vectors(), clip=clip)

    assert differing(found, expected) == []


@pytest.mark.parametrize("places", [(0, 1), (0, 1, 2), (1, 2)])
def test_a_gpt_in_parts_trains_with_the_bits_of_one_worker(processes: Running, places: Places) -> None:
    expected = embedded(lambda: trained(GPT([None] * len(places)), texts()))

    with tg.connect(processes.address, new=True):
        found = trained(GPT(places), texts())

    assert differing(found, expected) == []


def test_weights_tied_across_workers_get_the_gradients_of_both_uses(three: Inside) -> None:
    def values(found: dict[str, bytes]) -> dict[str, Any]:
        return {name: np.frombuffer(x, np.float32) for name, x in found.items() if name.endswith("weight")}

    expected = values(embedded(lambda: trained(GPT([None, None], is_tied=True), texts(), make=optim.SGD)))

    with tg.connect(three.address, new=True):
        found = values(trained(GPT([0, 1], is_tied=True), texts(), make=optim.SGD))

    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("places", [(0, 1), (0, 1, 2)])
@pytest.mark.parametrize("micro_batches", [2, 4])
def test_a_pipeline_over_workers_has_the_bits_of_one_on_one(
    processes: Running, places: Places, micro_batches: int
) -> None:
    expected = embedded(lambda: trained(mlp([None] * len(places)), vectors(), micro_batches=micro_batches))

    with tg.connect(processes.address, new=True):
        found = trained(mlp(places), vectors(), micro_batches=micro_batches)

    assert differing(found, expected) == []


@pytest.mark.parametrize(("rows", "micro_batches"), [(8, 4), (10, 4), (3, 8)])
def test_loss_and_gradients_of_a_pipeline_are_those_of_the_whole_batch(rows: int, micro_batches: int) -> None:
    with tg.connect(backend="numpy", new=True):
        x, y = map(tg.asarray, vectors(rows))
        model = mlp([None, None])
        model.eval()

        def loss_of(x: tg.Tensor, y: tg.Tensor) -> tg.Tensor:
            return F.cross_entropy(model(x), y)

        def gradients(f: Callable[..., tg.Tensor]) -> list[Any]:
            loss = f(x, y)
            loss.backward()
            found = [loss.numpy(), *[p.grad.numpy() for p in model.parameters()]]
            for p in model.parameters():
                p.grad = None
            return found

        whole, piped = gradients(loss_of), gradients(tg.pipeline(loss_of, micro_batches=micro_batches))

    for a, b in zip(piped, whole, strict=True):
        assert np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b) + 1e-9


def test_a_pipeline_puts_rows_together_and_refuses_what_is_neither() -> None:
    with tg.connect(backend="numpy", new=True):
        x = tg.asarray(vectors(7)[0])
        model = mlp([None, None])
        model.eval()
        np.testing.assert_allclose(tg.pipeline(model, micro_batches=3)(x).numpy(), model(x).numpy(), rtol=1e-6)
        with pytest.raises(GraphError, match="rows of a micro-batch"):
            tg.pipeline(lambda x: x.sum(0), micro_batches=3)(x)
        with pytest.raises(GraphError, match="micro_batches must be"):
            tg.pipeline(model, micro_batches=0)


def test_loops_and_branches_run_in_a_part(three: Inside) -> None:
    def run() -> dict[str, bytes]:
        with tg.on(1):
            w = tg.Parameter(np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4))

        @tg.function
        def f(x: tg.Tensor) -> tg.Tensor:
            with tg.on(1):
                last, sums = tg.scan(lambda c, x: (tg.tanh(c @ w + x), c.sum()), x, tg.stack([x, 2 * x]))
            with tg.on(2):
                return tg.cond(sums.sum() > 0, lambda: last * 2, lambda: last * 3)

        x = tg.asarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
        return {"value": f(x).numpy().tobytes(), "slope": tg.grad(lambda x: f(x).sum())(x).numpy().tobytes()}

    expected = embedded(run)

    with tg.connect(three.address, new=True):
        assert differing(run(), expected) == []


def test_gradients_of_any_order_go_through_moves(three: Inside) -> None:
    def run() -> dict[str, bytes]:
        def f(x: tg.Tensor) -> tg.Tensor:
            with tg.on(1):
                y = tg.sin(x) * x
            with tg.on(2):
                return (y * y * tg.exp(y)).sum()

        x = tg.asarray(np.linspace(-1, 1, 5))
        g = tg.grad(f)
        return {
            "first": g(x).numpy().tobytes(),
            "second": tg.grad(lambda x: (g(x) ** 2).sum())(x).numpy().tobytes(),
            "all": tg.hessian(f)(x).numpy().tobytes(),
        }

    expected = embedded(run)

    with tg.connect(three.address, new=True):
        assert differing(run(), expected) == []


def test_a_checkpointed_stage_is_computed_again_where_it_lives(three: Inside) -> None:
    def run(places: Places) -> dict[str, bytes]:
        model = mlp(places)
        return trained(nn.Sequential(Checkpointed(model)), vectors())

    expected = embedded(lambda: run([None, None]))

    with tg.connect(three.address, new=True):
        assert differing(run([0, 1]), expected) == []


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return tg.checkpoint(self.inner)(x)


# ---- where things are


ONE, TOKEN = 1, 2
"""The byte by which a session was asked to synchronize; that with which one elsewhere begins, and the test's own."""


def test_parameters_and_optimiser_state_live_on_their_worker_only(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        with tg.on(1):
            big = nn.Linear(300, 200, bias=False)
        assert three.held_by(session) == [ONE, 240_000 + TOKEN, TOKEN]

        optimizer = optim.Adam(big.parameters(), lr=0.1)
        assert big.weight.worker == 1
        assert three.held_by(session) == [ONE, 3 * 240_000 + 8 + TOKEN, TOKEN]

        loss = (big(tg.ones((2, 300))) ** 2).sum()
        optimizer.minimize(loss)
        loss.item()
        del loss
        assert three.held_by(session) == [ONE, 3 * 240_000 + 8 + TOKEN, TOKEN]

        del big, optimizer
        assert three.held_by(session) == [ONE, TOKEN, TOKEN]


def test_state_is_fetched_from_where_it_lives_and_loaded_there(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        with tg.on(1):
            first = nn.Linear(300, 200)
        with tg.on(2):
            second = nn.Linear(300, 200)
        optimizer, other = optim.Adam(first.parameters(), lr=0.1), optim.Adam(second.parameters(), lr=0.1)
        optimizer.minimize((first(tg.ones((2, 300))) ** 2).sum())
        before = three.held_by(session)

        second.load_state_dict(first.state_dict())
        other.load_state_dict(optimizer.state_dict())

        assert three.held_by(session) == before
        assert np.array_equal(second.weight.numpy(), first.weight.numpy())
        found, expected = (o.state_dict()["state"][0]["exp_avg"] for o in (other, optimizer))
        assert np.array_equal(found, expected)


def test_tensors_move_from_worker_to_worker_and_not_through_the_home(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        three.held_by(session)

        def moved() -> list[int]:
            return [three.recruits[name].moved_bytes for name in three.of(session)]

        @tg.function
        def f(rows: tg.Tensor) -> tg.Tensor:
            with tg.on(1):
                x = tg.exp(tg.broadcast_to(rows, (1000, 1000)))
            with tg.on(2):
                return (x * 2).sum()

        before = moved()
        f(np.ones(1000, np.float32)).item()

        assert [b - a for a, b in zip(before, moved(), strict=True)] == [0, 0, 4_000_000]


def test_what_is_made_under_a_place_lives_there_and_is_fetched_from_there(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        with tg.on(1):
            x = tg.random.normal((500, 100))
        y = x * 2
        y.sum().item()
        assert three.held_by(session) == [ONE, 2 * 200_000 + TOKEN, TOKEN]
        assert np.array_equal(y.numpy(), 2 * x.numpy())

        with session.scope():
            z = x + y
            z.sum().item()
        assert three.held_by(session) == [ONE, 2 * 200_000 + TOKEN, TOKEN]


def test_a_variable_stays_where_it_was_made_whatever_is_assigned(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        with tg.on(2):
            v = tg.Variable(np.zeros(1000, np.float32))
        v.assign(np.ones(1000, np.float32))
        with tg.on(1):
            v.assign(v + 1)

        assert three.held_by(session) == [ONE, TOKEN, 4000 + TOKEN]
        assert v.numpy().tolist() == [2.0] * 1000


# ---- what goes wrong


def test_a_worker_that_is_not_there_is_named_before_anything_runs(three: Inside) -> None:
    with tg.connect(three.address, new=True):
        with tg.on(1):
            v = tg.Variable(1.0)
        with pytest.raises(NotFound, match=r"no worker:7; .* 3: worker:0, worker:1, worker:2"), tg.on("worker:7"):
            (v * 2).item()

        assert v.item() == 1.0


@pytest.mark.parametrize("worker", ["gpu:1", "worker:", -1, 4096, 1.0, True])
def test_what_is_no_worker_is_refused(worker: Any) -> None:
    with pytest.raises(GraphError, match="is no worker"), tg.on(worker):
        pass


def test_replicas_and_parts_are_not_mixed(three: Inside) -> None:
    with tg.connect(three.address, new=True):
        with tg.on(1):
            v = tg.Variable(np.ones(3, np.float32))

        @tg.function(replicas=2)
        def marked(x: tg.Tensor) -> tg.Tensor:
            with tg.on(1):
                return x * 2

        @tg.function(replicas=2)
        def using(x: tg.Tensor) -> tg.Tensor:
            return x * v

        x = np.ones((4, 3), np.float32)
        with pytest.raises(GraphError, match="not both"):
            marked(x)
        with pytest.raises(GraphError, match="live on other workers"):
            using(x).numpy()


def test_a_server_that_is_one_worker_runs_all_of_it_and_says_so() -> None:
    with tg.connect(backend="numpy", new=True) as session:
        with tg.on("worker:3"):
            x = tg.ones(3) * 2

        assert x.numpy().tolist() == [2.0, 2.0, 2.0]
        assert sum("one worker" in warning for warning in session.warnings) == 1


def step_that_looks_up(places: Places) -> tuple[list[tg.Parameter], Callable[..., tg.Tensor]]:
    """A step of three stages, each of which looks up a row that may not be there."""
    tables: list[tg.Parameter] = []
    for place in places:
        with on(place):
            tables.append(tg.Parameter(np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)))
    optimizer = optim.Adam(tables, lr=0.1)

    @tg.function
    def step(indices: Any) -> tg.Tensor:
        total = tg.zeros(())
        for table, i in zip(tables, indices, strict=True):
            total = total + (tg.tanh(tg.take(table, i, axis=0)) * (1 + total)).sum()
        optimizer.minimize(total)
        return total

    return tables, step


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_step_that_fails_on_one_worker_changes_nothing_on_any(three: Inside, wrong: int) -> None:
    with tg.connect(three.address, new=True):
        tables, step = step_that_looks_up([0, 1, 2])
        good = [np.array([1, 2])] * 3
        bad = [np.array([1, 99]) if i == wrong else x for i, x in enumerate(good)]
        first = step(good).item()
        before = [table.numpy() for table in tables]

        after = step(bad)
        refused = step(good)
        with pytest.raises(IndexRange, match="99") as caught:
            after.item()

        assert Path(__file__).name in str(caught.value.location)
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, tables, strict=True))
        with pytest.raises(IndexRange):
            refused.item()
        assert step(good).item() < first
        assert not any(np.array_equal(a, b.numpy()) for a, b in zip(before, tables, strict=True))


def test_a_failed_step_leaves_no_memory_behind(three: Inside) -> None:
    with tg.connect(three.address, new=True) as session:
        tables, step = step_that_looks_up([0, 1, 2])
        good = [np.array([1, 2])] * 3
        step(good).item()
        before = three.held_by(session)

        with pytest.raises(IndexRange):
            step([good[0], good[1], np.array([9, 9])]).item()

        assert three.held_by(session) == before
        del tables, step


@pytest.fixture
def mortal() -> Iterator[Running]:
    """Three workers, of which a test may kill some."""
    with gateway("--workers", "3", "--worker-lease-seconds", "3") as running:
        wait_for(running, 3)
        yield running


def first_worker(running: Running, session: tg.Session) -> psutil.Process:
    """Worker 1 of the session, which has used no other yet: the one to which its home is connected."""
    while True:
        try:
            with tg.on(1):
                (tg.ones(()) * 2).item()
            break
        except NotFound:
            continue  # it has not joined yet
    to = {c.raddr.port for c in running.worker(session.home).net_connections() if c.raddr}
    others = [worker for worker in running.workers() if session.home not in worker.cmdline()]
    (found,) = [w for w in others if to & {c.laddr.port for c in w.net_connections() if c.status == "LISTEN"}]
    return found


def test_death_of_a_worker_loses_what_lived_there_and_nothing_else(mortal: Running) -> None:
    with tg.connect(mortal.address, new=True) as session:
        victim = first_worker(mortal, session)
        tables, step = step_that_looks_up([0, 1, 2])
        tables[1].name = "middle"
        good = [np.array([1, 2])] * 3
        step(good).item()
        kept = [tables[0].numpy(), tables[2].numpy()]

        line = victim.cmdline()
        victim.kill()
        with pytest.raises(WorkerLost, match=r"worker:1 .* is lost.*float32\[4,3\]") as caught:
            step(good).item()

        assert caught.value.details["worker"] in line
        assert "middle" in caught.value.details["variables"]
        with pytest.raises(WorkerLost):
            tables[1].numpy()
        with pytest.raises(WorkerLost):
            (tables[1] * 2).numpy()
        assert np.array_equal(tables[0].numpy(), kept[0])
        assert np.array_equal(tables[2].numpy(), kept[1])
        assert (tables[2] * 2).sum().item() == pytest.approx(2 * float(kept[1].sum()), rel=1e-6)


def test_death_of_a_worker_in_the_middle_of_a_step_ends_the_step(mortal: Running) -> None:
    with tg.connect(mortal.address, new=True) as session:
        victim = first_worker(mortal, session)
        with tg.on(1):
            w = tg.Variable(np.eye(400, dtype=np.float32))
        with tg.on(2):
            u = tg.Variable(np.eye(400, dtype=np.float32))

        @tg.function
        def long(x: tg.Tensor) -> tg.Tensor:
            x, _ = tg.scan(lambda c, i: (c @ w, i), x, tg.arange(100_000))
            v = (x @ u).sum()
            u.assign(u + v)
            return v

        result = long(np.eye(400, dtype=np.float32))
        while victim.cpu_percent(0.05) < 50:
            pass  # it has not begun
        victim.kill()

        with pytest.raises(WorkerLost):
            result.item()
        assert np.array_equal(u.numpy(), np.eye(400))


def test_what_was_lost_can_be_assigned_anew_on_another_worker(mortal: Running) -> None:
    with tg.connect(mortal.address, new=True) as session:
        victim = first_worker(mortal, session)
        with tg.on(1):
            v = tg.Variable(np.zeros(3, np.float32))
        assert v.numpy().tolist() == [0.0, 0.0, 0.0]
        victim.kill()
        with pytest.raises(WorkerLost):
            v.numpy()

        v.assign(np.ones(3, np.float32))

        assert (v + 1).numpy().tolist() == [2.0, 2.0, 2.0]
