"""Data-parallel functions as a user meets them: what is split, what results mean, and that numbers are a batch's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import DTypeError, GraphError, ShapeError, TelegradError

pytestmark = pytest.mark.usefixtures("session")

Array = npt.NDArray[Any]
DTYPES = [pytest.param(tg.float32, 1e-6, id="float32"), pytest.param(tg.float64, 1e-12, id="float64")]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def filled(model: nn.Module) -> nn.Module:
    for i, p in enumerate(model.parameters()):
        p.assign(tg.asarray(numbers(*p.shape, seed=i) / 2, dtype=p.dtype))
    return model


def mlp(dtype: tg.DType = tg.float64) -> nn.Module:
    return filled(nn.Sequential(nn.Linear(5, 8, dtype=dtype), nn.Tanh(), nn.Linear(8, 3, dtype=dtype)))


def near(x: Any, y: Any, tolerance: float = 1e-12) -> None:
    """Equal to within ``tolerance`` of the norm."""
    a, b = (np.asarray(z.numpy() if isinstance(z, tg.Tensor) else z, np.float64) for z in (x, y))
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-3)


# ---- what is split, and what results mean


def test_rows_are_split_as_numpy_does_and_results_are_put_together() -> None:
    @tg.function(replicas=4)
    def f(x: Any) -> Any:
        return x * 0 + tg.replica_index(), x.mean(), x.shape[1]

    where, mean, columns = f(numbers(10, 2))

    assert where.numpy()[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    near(mean, numbers(10, 2).mean())
    assert columns == 2


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9])
def test_any_number_of_rows(rows: int) -> None:
    @tg.function(replicas=4)
    def f(x: Any, scale: float) -> Any:
        return (x * scale).sum(1), (x * scale).mean()

    x = numbers(rows, 3)
    sums, mean = f(x, 2.0)

    near(sums, 2 * x.sum(1))
    near(mean, 2 * x.mean())


def test_scalars_are_summed_if_so_asked() -> None:
    @tg.function(replicas=3, reduce="sum")
    def f(x: Any) -> Any:
        return x.sum(), (x > 0).astype(tg.int64).sum()

    x = numbers(8)
    total, count = f(x)

    near(total, x.sum())
    assert count.item() == (x > 0).sum()


def test_nests_static_values_and_shared_arguments() -> None:
    @dataclasses.dataclass
    class Batch:
        x: Any
        y: Any

    @tg.function(replicas=2, static=["mode"], replicated=["table", "limits"])
    def f(batch: Batch, *, table: Any, limits: Any, mode: str) -> dict[str, Any]:
        picked = table[batch.y] if mode == "pick" else batch.x
        return {"a": [batch.x + picked, limits["low"]], "mode": mode, "none": None, "table": table * 2}

    x, y, table = numbers(5), np.array([0, 2, 1, 1, 0]), numbers(3)
    out = f(Batch(x, tg.asarray(y)), table=table, limits={"low": np.zeros(2)}, mode="pick")

    near(out["a"][0], x + table[y])
    near(out["a"][1], np.zeros(2))
    near(out["table"], table * 2)
    assert (out["mode"], out["none"]) == ("pick", None)


def test_captured_tensors_and_variables_are_the_same_on_all() -> None:
    c, v = tg.asarray(numbers(4)), tg.Variable(0.0)

    @tg.function(replicas=2)
    def f(x: Any) -> Any:
        v.assign(v + 1)
        return x * c, v * 10

    assert [f(numbers(6, 4))[1].item() for _ in range(3)] == [10, 20, 30]
    near(f(numbers(6, 4))[0], numbers(6, 4) * numbers(4))


def test_a_method_and_a_retrace() -> None:
    class Model:
        @tg.function(replicas=2)
        def score(self, x: Any) -> Any:
            return (x * 2).sum(1)

    model = Model()

    for rows in (4, 5, 4):
        near(model.score(numbers(rows, 3)), numbers(rows, 3).sum(1) * 2)
    assert Model.score.traces == 2  # type: ignore[attr-defined]


def test_random_numbers_differ_from_replica_to_replica_and_repeat() -> None:
    def drawn() -> Array:
        with tg.connect(backend="numpy", new=True, seed=5):

            @tg.function(replicas=4)
            def f(x: Any) -> Any:
                return tg.random.uniform((x.shape[0], 8))

            return np.stack([f(np.zeros(4)).numpy(), f(np.zeros(4)).numpy()])

    first = drawn()

    assert len(np.unique(first)) == first.size
    assert first.tobytes() == drawn().tobytes()


# ---- training


def trained(make: Callable[[Any], Any], *, dtype: tg.DType, rows: int, steps: int = 3, **options: Any) -> list[Array]:
    """Losses, norms and parameters of a few steps with clipping."""
    model = mlp(dtype)
    optimizer = make(model.parameters())

    def step(x: Any, y: Any) -> Any:
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()
        return loss, norm

    f = tg.function(step, **options)
    cast = np.float32 if dtype is tg.float32 else np.float64
    found = [f(numbers(rows, 5, seed=i).astype(cast), numbers(rows, 3, seed=9 + i).astype(cast)) for i in range(steps)]
    return [x.numpy() for pair in found for x in pair] + [p.numpy() for p in model.parameters()]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("rows", [8, 10])
def test_a_step_is_that_of_the_whole_batch(dtype: tg.DType, tolerance: float, rows: int) -> None:
    make = {"SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9), "AdamW": lambda p: optim.AdamW(p, lr=0.01)}
    for maker in make.values():
        alone = trained(maker, dtype=dtype, rows=rows)
        divided = trained(maker, dtype=dtype, rows=rows, replicas=4)

        for x, y in zip(divided, alone, strict=True):
            near(x, y, 20 * tolerance)


def test_gradients_weigh_every_row_alike_as_numpy_says() -> None:
    w = tg.Parameter(numbers(3))

    @tg.function(replicas=4)
    def f(x: Any, y: Any) -> Any:
        ((x @ w - y) ** 2).mean().backward()

    x, y = numbers(7, 3, seed=1), numbers(7, seed=2)
    f(x, y)

    assert w.grad is not None
    near(w.grad, 2 * x.T @ (x @ numbers(3) - y) / 7)


def test_of_sums_the_gradient_is_the_sum() -> None:
    w = tg.Parameter(numbers(3))

    @tg.function(replicas=4, reduce="sum")
    def f(x: Any) -> Any:
        loss = ((x @ w) ** 2).sum()
        loss.backward()
        return loss

    x = numbers(7, 3, seed=1)
    loss = f(x)

    assert w.grad is not None
    near(loss, ((x @ numbers(3)) ** 2).sum())
    near(w.grad, 2 * x.T @ (x @ numbers(3)))


def test_gradients_add_up_from_call_to_call() -> None:
    w = tg.Parameter(numbers(3))

    @tg.function(replicas=2)
    def f(x: Any) -> Any:
        (x @ w).mean().backward()

    for i in range(2):
        f(numbers(4, 3, seed=i))

    assert w.grad is not None
    near(w.grad, numbers(4, 3, seed=0).mean(0) + numbers(4, 3, seed=1).mean(0))


def reductions(function: Any) -> int:
    (compiled,) = next(iter(function._compiled.values())).values()
    return sum(node.op.name == "all_reduce" for node in compiled[0].graph.nodes)


def test_gradients_that_are_added_up_are_reduced_once() -> None:
    x = numbers(12, 5)

    def run(halves: Callable[[Any], list[Any]], **options: Any) -> tuple[Any, list[Array]]:
        model = mlp()
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> None:
            for part in range(3):
                loss = (model(tg.concat([half[part::3] for half in halves(x)])) ** 2).mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        f = tg.function(step, **options)
        f(x)
        return f, [p.numpy() for p in model.parameters()]

    f, divided = run(lambda x: [x], replicas=2)
    _, alone = run(lambda x: [x[:6], x[6:]])

    assert reductions(f) == len(divided)
    for p, q in zip(divided, alone, strict=True):
        near(p, q)


def test_gradients_added_up_in_a_scan_are_reduced_behind_it() -> None:
    w = tg.Parameter(numbers(3))

    @tg.function(replicas=2)
    def step(x: Any) -> Any:
        def micro(total: Any, part: Any) -> Any:
            g = tg.grad(lambda w: ((part @ w) ** 2).mean())(w)
            return total + g, g

        total, each = tg.scan(micro, tg.zeros(3, dtype=tg.float64), x.reshape((2, -1, 3)))
        return total, each

    x = numbers(8, 3, seed=4)
    total, each = step(x)

    parts = [x[[0, 1, 4, 5]], x[[2, 3, 6, 7]]]
    wanted = [2 * p.T @ (p @ numbers(3)) / 4 for p in parts]
    near(total, sum(wanted))
    near(each, np.stack(wanted))


def test_the_loss_scaler_sees_one_gradient() -> None:
    model = mlp()
    optimizer, scaler = optim.SGD(model.parameters(), lr=0.1), optim.GradScaler(1024.0)

    @tg.function(replicas=3)
    def step(x: Any, bad: Any) -> Any:
        loss = (model(x) ** 2).mean() * bad.mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return loss

    before = [p.numpy() for p in model.parameters()]
    step(numbers(7, 5), np.array([1, 1, 1, 1, 1, 1, np.inf])).item()
    assert all(np.array_equal(p.numpy(), old) for p, old in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 512
    step(numbers(7, 5), np.ones(7)).item()
    assert not np.array_equal(next(iter(model.parameters())).numpy(), before[0])


def test_transforms_inside() -> None:
    w = tg.asarray(numbers(5))

    @tg.function(replicas=4)
    def f(x: Any) -> Any:
        value, slope = tg.value_and_grad(lambda w: ((x @ w) ** 2).mean())(w)
        each = tg.vmap(tg.grad(lambda w, row: (row @ w) ** 2), in_axes=(None, 0))(w, x)
        own = tg.grad(lambda x: ((x @ w) ** 2).sum())(x)
        _, tangent = tg.jvp(lambda w: x @ w, (w,), (tg.ones(5, dtype=tg.float64),))
        return value, slope, each, own, tangent

    x, weights = numbers(6, 5, seed=2), numbers(5)
    value, slope, each, own, tangent = f(x)

    near(value, ((x @ weights) ** 2).mean())
    near(slope, 2 * x.T @ (x @ weights) / 6)
    near(each, 2 * x * (x @ weights)[:, None])
    near(own, 2 * (x @ weights)[:, None] * weights)
    near(tangent, x.sum(1))


@pytest.mark.parametrize("rows", [8, 7])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("inner", ["mean", "sum"])
def test_second_derivatives_go_through_reductions(rows: int, reduce: str, inner: str) -> None:
    """d/dw of loss(w) + |dloss/dw|^2, where the loss of a row knows a mean or sum over all rows."""
    x, w = numbers(rows, 5, seed=3), tg.asarray(numbers(5))

    def objective(x: Any, over_all: Callable[[Any], Any], penalty: float) -> Callable[[Any], Any]:
        def loss(w: Any) -> Any:
            each = (tg.sigmoid(x @ w) * (1 + over_all(tg.tanh(x @ w)))) ** 2
            return each.mean() if reduce == "mean" else each.sum()

        return lambda w: loss(w) + penalty * (tg.grad(loss)(w) ** 2).sum()

    @tg.function(replicas=3, reduce=reduce)
    def divided(x: Any) -> Any:
        own = (lambda v: v.mean()) if inner == "mean" else (lambda v: v.sum() / rows)
        over_all = lambda v: tg.all_reduce(own(v), inner)  # noqa: E731
        return tg.grad(objective(x, over_all, 1.0))(w)

    # of a sum, a term that every replica adds counts once for each
    alone = objective(tg.asarray(x), lambda v: v.mean(), 1.0 if reduce == "mean" else 3.0)
    near(divided(x), tg.grad(alone)(w), 1e-11)


# ---- statistics


class Net(nn.Module):
    """A convolution and a linear layer, each with a batch norm."""

    def __init__(self, dtype: tg.DType) -> None:
        super().__init__()
        self.conv, self.one = nn.Conv2d(2, 4, 3, dtype=dtype), nn.BatchNorm2d(4, dtype=dtype)
        self.linear, self.two = nn.Linear(4, 3, dtype=dtype), nn.BatchNorm1d(3, dtype=dtype, momentum=None)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.two(self.linear(tg.tanh(self.one(self.conv(x))).mean((2, 3))))


def statistics_and_gradients(model: nn.Module, shape: tuple[int, ...], dtype: tg.DType, **options: Any) -> list[Array]:
    """Results of two calls, gradients and running statistics."""
    weight = tg.asarray(numbers(shape[0], 3, seed=5), dtype=dtype)

    def step(x: Any, weight: Any) -> Any:
        out = model(x)
        ((out + out**2) * weight).mean().backward()
        return out

    f = tg.function(step, **options)
    found = [f(tg.asarray(numbers(*shape, seed=i), dtype=dtype), weight).numpy() for i in range(2)]
    found += [p.grad.numpy() for p in model.parameters() if p.grad is not None]
    return found + [b.numpy() for b in model.buffers()]


@pytest.mark.parametrize("rows", [8, 9])
def test_a_network_with_synchronised_batch_norms_is_that_on_the_whole_batch(rows: int) -> None:
    shape, model = (rows, 2, 6, 6), filled(Net(tg.float64))
    alone = statistics_and_gradients(filled(Net(tg.float64)), shape, tg.float64)

    assert nn.SyncBatchNorm.convert_sync_batchnorm(model) is model
    assert isinstance(model.one, nn.SyncBatchNorm) and isinstance(model.two, nn.SyncBatchNorm)
    divided = statistics_and_gradients(model, shape, tg.float64, replicas=4)

    assert len(alone) == len(divided) > 10
    for x, y in zip(divided, alone, strict=True):
        near(x, y, 1e-12) if np.linalg.norm(y) > 1e-9 else near(x, y, 1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("rows", [16, 18])
def test_a_synchronised_batch_norm_is_one_on_the_whole_batch(dtype: tg.DType, tolerance: float, rows: int) -> None:
    def made() -> nn.Module:
        return filled(nn.Sequential(nn.BatchNorm1d(3, dtype=dtype, momentum=None)))

    alone = statistics_and_gradients(made(), (rows, 3), dtype)
    divided = statistics_and_gradients(nn.SyncBatchNorm.convert_sync_batchnorm(made()), (rows, 3), dtype, replicas=4)

    for x, y in zip(divided, alone, strict=True):
        near(x, y, tolerance)


def test_plain_running_statistics_are_the_means_of_those_of_the_replicas() -> None:
    norm = nn.BatchNorm1d(3, dtype=tg.float64)

    @tg.function(replicas=2)
    def f(x: Any) -> Any:
        return norm(x)

    x = numbers(7, 3)
    f(x).numpy()

    halves = [x[:4], x[4:]]
    near(norm.running_mean, 0.1 * x.mean(0))
    near(norm.running_var, 0.9 + 0.1 * (4 / 7 * halves[0].var(0, ddof=1) + 3 / 7 * halves[1].var(0, ddof=1)))
    assert norm.num_batches_tracked.item() == 1


def test_running_statistics_in_a_scan_in_a_replica() -> None:
    norm = nn.BatchNorm1d(3, dtype=tg.float64)

    @tg.function(replicas=2)
    def f(x: Any) -> Any:
        _, ys = tg.scan(lambda c, part: (c, norm(part)), tg.zeros(()), x.reshape((2, -1, 3)))
        return ys.mean()

    f(numbers(8, 3)).item()

    assert norm.num_batches_tracked.item() == 2


def test_outside_of_replicas_there_is_one() -> None:
    x = tg.asarray(numbers(4, 3))

    @tg.function
    def f(x: Any) -> Any:
        return tg.all_reduce(x.sum(), "sum"), tg.replica_index()

    near(f(x)[0], numbers(4, 3).sum())
    assert f(x)[1].item() == 0
    assert tg.replica_index().item() == 0
    near(tg.all_reduce(x), numbers(4, 3))
    near(nn.SyncBatchNorm(3, dtype=tg.float64)(x), nn.BatchNorm1d(3, dtype=tg.float64)(x))


def test_a_reduced_count_of_rows_is_that_of_all() -> None:
    @tg.function(replicas=3)
    def f(x: Any) -> Any:
        count = tg.all_reduce(tg.full((), float(x.shape[0])), "sum")
        largest = tg.all_reduce(tg.full((), float(x.shape[0])))
        return count, largest, x / count

    count, weighted, scaled = f(numbers(7))

    assert count.item() == 7
    assert weighted.item() == pytest.approx((3 * 3 + 2 * 2 + 2 * 2) / 7)
    near(scaled, numbers(7) / 7, 1e-7)


# ---- what is refused


def refused(error: type[TelegradError], words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=words):
        out = call()
        for x in out if isinstance(out, tuple) else (out,):
            if isinstance(x, tg.Tensor):
                x.numpy()


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, 5000])
def test_a_number_of_replicas_that_is_none_is_refused(wrong: Any) -> None:
    refused(GraphError, "replicas must be an integer from 1", lambda: tg.function(lambda x: x, replicas=wrong))


def test_wrong_options_are_refused() -> None:
    refused(GraphError, "reduce must be 'mean' or 'sum'", lambda: tg.function(lambda x: x, replicas=2, reduce="max"))
    refused(GraphError, r"\['z'\] are none", lambda: tg.function(lambda x: x, replicas=2, replicated=["z"]))


def test_arguments_that_cannot_be_split_are_refused() -> None:
    def f(x: Any, y: Any = 1.0) -> Any:
        return (x * y).sum()

    g = tg.function(f, replicas=2)

    refused(GraphError, "none of them has an axis to split", lambda: g(1.0))
    refused(ShapeError, "x has 4, y has 3; name those", lambda: g(np.ones(4), np.ones(3)))
    refused(ShapeError, "x has 0 rows", lambda: g(np.ones((0, 3))))
    refused(GraphError, "x requires a gradient", lambda: g(tg.asarray(np.ones(4)).requires_grad_()))


def test_results_that_mean_nothing_are_refused_by_name_and_line() -> None:
    def of(f: Callable[[Any], Any], **options: Any) -> Callable[[], Any]:
        return lambda: tg.function(f, replicas=2, **options)(np.ones((6, 4)))

    where = r"test_replicas\.py:\d+"
    refused(
        GraphError,
        rf"result\['a'\]\[1\], a float64\[4\], made at .*{where}.*tg\.all_reduce",
        of(lambda x: {"a": [1, x.sum(0)]}),
    )
    refused(GraphError, "has no mean; use tg.all_reduce", of(lambda x: (x > 0).sum()))
    v = tg.Variable(np.int64(0), name="seen")

    def assigns(x: Any) -> None:
        v.assign((x > 0).astype(tg.int64).sum())

    refused(GraphError, "the new value of variable 'seen'.*has no mean", of(assigns))
    refused(DTypeError, "has no mean over replicas", of(lambda x: tg.all_reduce((x > 0).astype(tg.int64))))
    refused(GraphError, "reduce must be 'mean' or 'sum'", of(lambda x: tg.all_reduce(x, "max")))
    refused(DTypeError, "bool.* cannot be summed", of(lambda x: tg.all_reduce(x > 0, "sum")))


def test_what_depends_on_the_number_of_rows_is_refused() -> None:
    def of(f: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: tg.function(f, replicas=2)(np.ones((5, 4)))

    refused(GraphError, "different nests or Python values", of(lambda x: x.shape[0]))
    refused(
        GraphError, "made of the number of a replica's rows", of(lambda x: tg.all_reduce(x.sum()) * float(x.shape[0]))
    )
    refused(GraphError, "do not reduce the same", of(lambda x: tg.all_reduce(x).sum()))


def test_a_reduction_in_a_loop_is_refused_with_its_line() -> None:
    @tg.function(replicas=2)
    def f(x: Any) -> Any:
        return tg.scan(lambda c, row: (c + tg.all_reduce(row.mean()) ** 2, None), tg.zeros(()), x.astype(tg.float32))[0]

    refused(GraphError, r"all_reduce in the body of a scan(.|\n)*test_replicas\.py", lambda: f(np.ones((4, 3))))


def test_a_function_with_replicas_is_not_called_in_another_trace() -> None:
    inner = tg.function(lambda x: x.mean(), replicas=2)

    refused(GraphError, "give the outer function replicas=2", lambda: tg.function(lambda x: inner(x))(np.ones(4)))
    assert tg.function(lambda x: inner(x), replicas=2)(np.ones(4)).item() == 1
