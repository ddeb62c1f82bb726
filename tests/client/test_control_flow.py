"""scan, cond, switch, while_loop, fori_loop as users call them: values, gradients, random numbers, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import ExecutionError, GraphError, IndexRange, ShapeError, TooExpensive, TraceError

pytestmark = pytest.mark.usefixtures("session")

RANDOM = np.random.default_rng(5)
W, X, H = RANDOM.normal(size=(3, 3)) / 2, RANDOM.normal(size=(6, 3)), RANDOM.normal(size=3)


@pytest.fixture(params=["eager", "traced"])
def mode(request: pytest.FixtureRequest) -> Any:
    return tg.function if request.param == "traced" else lambda f: f


def tensors(*arrays: np.ndarray[Any, Any]) -> list[tg.Tensor]:
    return [tg.asarray(a) for a in arrays]


def step(h: tg.Tensor, x: tg.Tensor, w: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    h = tg.tanh(h @ w + x)
    return h, tg.sin(h)


def rolled(w: tg.Tensor, x: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
    h, ys = tg.scan(lambda h, x: step(h, x, w), h, x)
    return (h * h).sum() + (ys * tg.exp(ys)).sum()


def unrolled(w: tg.Tensor, x: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
    total = tg.asarray(0.0, dtype=tg.float64)
    for i in range(x.shape[0]):
        h, y = step(h, x[i], w)
        total = total + (y * tg.exp(y)).sum()
    return total + (h * h).sum()


def test_a_scan_is_the_loop_unrolled_to_the_second_derivative(mode: Any) -> None:
    def derivatives(f: Callable[..., tg.Tensor]) -> Any:
        first = tg.value_and_grad(f, argnums=(0, 1, 2))
        second = tg.grad(lambda *xs: sum(((g**3).sum() for g in first(*xs)[1]), tg.asarray(0.0)), argnums=(0, 1, 2))
        return mode(lambda *xs: (first(*xs), second(*xs)))

    (a, da), dda = derivatives(rolled)(*tensors(W, X, H))
    (b, db), ddb = derivatives(unrolled)(*tensors(W, X, H))

    for mine, plain in zip([a, *da, *dda], [b, *db, *ddb], strict=True):
        np.testing.assert_allclose(mine.numpy(), plain.numpy(), rtol=1e-11)


def test_nests_reverse_and_the_length_alone(mode: Any) -> None:
    def f(x: tg.Tensor) -> Any:
        carry = {"sum": tg.asarray(0.0), "count": tg.asarray(0)}
        forwards = tg.scan(lambda c, s: ({"sum": c["sum"] + s, "count": c["count"] + 1}, [c["sum"]]), carry, x)
        backwards = tg.scan(lambda c, s: (c + s["x"], c), tg.asarray(0.0), {"x": x}, reverse=True)
        powers = tg.scan(lambda c, _: (c * 2, c), tg.asarray(1), length=5)
        return forwards, backwards, powers

    (carry, (before,)), (total, after), (last, powers) = mode(f)(tg.asarray([1.0, 2.0, 4.0]))

    assert (carry["sum"].item(), carry["count"].item(), before.tolist()) == (7.0, 3, [0.0, 1.0, 3.0])
    assert (total.item(), after.tolist()) == (7.0, [6.0, 4.0, 0.0])
    assert (last.item(), powers.tolist()) == (32, [1, 2, 4, 8, 16])


def test_a_scan_of_no_trips(mode: Any) -> None:
    def f(x: tg.Tensor, h: tg.Tensor) -> tg.Tensor:
        last, ys = tg.scan(lambda c, s: (c * 2, c + s), h, x)
        return last.sum() + ys.sum()

    value, (gx, gh) = mode(tg.value_and_grad(f, argnums=(0, 1)))(tg.zeros((0, 3)), tg.ones(3))

    assert (value.item(), gx.shape, gh.tolist()) == (3.0, (0, 3), [1.0, 1.0, 1.0])


def test_half_a_million_trips_are_one_node() -> None:
    last, _ = tg.scan(lambda c, _: (c + 1, None), tg.asarray(0), length=100_000)

    assert last.item() == 100_000


def test_modules_and_variables_used_in_a_body_get_their_gradients() -> None:
    cell = nn.GRUCell(3, 4)
    optimizer = optim.SGD(cell.parameters(), lr=0.1)

    @tg.function
    def train(x: tg.Tensor) -> tg.Tensor:
        last, _ = tg.scan(lambda h, x: (cell(x, h), None), tg.zeros((2, 4)), x)
        loss = (last * last).mean()
        optimizer.minimize(loss)
        return loss

    x = tg.asarray(RANDOM.normal(size=(7, 2, 3)).astype(np.float32))
    losses = [train(x).item() for _ in range(30)]

    assert losses[-1] < 0.5 * losses[0]


def test_backward_outside_of_a_trace() -> None:
    w = tg.asarray(W)
    w.requires_grad = True

    rolled(w, *tensors(X, H)).backward()

    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), tg.grad(unrolled)(*tensors(W, X, H)).numpy(), rtol=1e-11)


def test_every_trip_draws_its_own_numbers_and_the_backward_the_same(mode: Any) -> None:
    def f(x: tg.Tensor) -> Any:
        def dropped(c: tg.Tensor, s: tg.Tensor) -> Any:
            y = nn.functional.dropout(s, 0.5)
            return c + y.sum(), y

        total, ys = tg.scan(dropped, tg.asarray(0.0), x)
        return total, ys

    x = tg.ones((8, 64))
    (_, ys), gradient = mode(
        lambda x: (lambda r: (r[0], r[1]))(
            (lambda value_aux, g: ((None, value_aux[1]), g))(*tg.value_and_grad(f, has_aux=True)(x))
        )
    )(x)

    rows = ys.numpy()
    assert len({row.tobytes() for row in rows}) == 8
    assert set(np.unique(rows)) == {0.0, 2.0}
    np.testing.assert_array_equal(gradient.numpy(), rows)


def test_nested_scans_draw_their_own_numbers_too() -> None:
    def inner(c: tg.Tensor, _: None) -> Any:
        return c, tg.random.uniform(())

    _, drawn = tg.scan(lambda c, _: (c, tg.scan(inner, c, length=5)[1]), tg.asarray(0), length=4)

    assert len(np.unique(drawn.numpy())) == 20


def test_cond_runs_one_branch(mode: Any) -> None:
    def f(x: tg.Tensor) -> tg.Tensor:
        return tg.cond(x.sum() > 0, lambda x: x * x, lambda x: -x, x)

    for x in (H, -np.abs(H), np.abs(H)):
        y, g = mode(tg.value_and_grad(lambda x: f(x).sum()))(tg.asarray(x))

        assert y.item() == pytest.approx((x * x if x.sum() > 0 else -x).sum())
        np.testing.assert_allclose(g.numpy(), 2 * x if x.sum() > 0 else -np.ones(3))


def test_a_branch_that_is_not_taken_is_not_run() -> None:
    table = tg.asarray([1.0, 2.0])

    def look_up(i: tg.Tensor) -> tg.Tensor:
        return tg.cond(i < 2, lambda: tg.take(table, i, axis=0), lambda: tg.asarray(-1.0))

    assert [look_up(tg.asarray(i)).item() for i in (0, 1, 7)] == [1.0, 2.0, -1.0]


def test_switch_clips_its_index(mode: Any) -> None:
    branches = [lambda x, k=k: x * k for k in range(3)]

    f = mode(lambda i, x: tg.switch(i, branches, x))

    assert [f(tg.asarray(i), tg.asarray(5.0)).item() for i in (-4, 0, 1, 2, 9)] == [0.0, 0.0, 5.0, 10.0, 10.0]


def test_while_loop_and_fori_loop(mode: Any) -> None:
    def gcd(a: tg.Tensor, b: tg.Tensor) -> tg.Tensor:
        return tg.while_loop(lambda c: c[1] != 0, lambda c: (c[1], c[0] % c[1]), (a, b), max_trips=100)[0]

    assert mode(gcd)(tg.asarray(1071), tg.asarray(462)).item() == 21
    assert mode(lambda x: tg.fori_loop(3, 7, lambda i, x: x + i, x))(tg.asarray(0)).item() == 18
    assert mode(lambda x: tg.fori_loop(7, 3, lambda i, x: x + i, x))(tg.asarray(5)).item() == 5
    g = mode(tg.grad(lambda x: tg.while_loop(lambda y: y < 50, lambda y: y * x, x, max_trips=9)))(tg.asarray(2.0))
    assert g.item() == 6 * 2.0**5


def test_loops_nest_in_transforms_and_each_other(mode: Any) -> None:
    def newton(a: tg.Tensor) -> tg.Tensor:
        return tg.while_loop(
            lambda x: tg.abs(x * x - a) > 1e-12, lambda x: 0.5 * (x + a / x), tg.ones_like(a), max_trips=30
        )

    def f(xs: tg.Tensor) -> tg.Tensor:
        body = tg.checkpoint(lambda c, x: (c + tg.cond(x > 1, newton, lambda x: x * x, x), None))
        return tg.scan(body, tg.asarray(0.0, dtype=tg.float64), xs)[0]

    value, g = mode(tg.value_and_grad(f))(tg.asarray(np.array([4.0, 0.5, 9.0])))

    assert value.item() == pytest.approx(5.25, rel=1e-12)
    np.testing.assert_allclose(g.numpy(), [0.25, 1.0, 1 / 6], rtol=1e-8)


def test_a_variable_assigned_in_a_body_is_carried(mode: Any) -> None:
    v = tg.Variable(tg.asarray(1.0))

    def double(c: tg.Tensor, x: tg.Tensor) -> Any:
        v.assign(v * 2)
        v.assign(v + x)
        return c + v, v * 1

    def run(x: tg.Tensor) -> Any:
        total, seen = tg.scan(double, tg.asarray(0.0), x)
        return total, seen, v * 1

    total, seen, last = mode(run)(tg.asarray([1.0, 2.0, 3.0]))

    assert (total.item(), seen.tolist(), last.item(), v.item()) == (3 + 8 + 19, [3.0, 8.0, 19.0], 19.0, 19.0)


@pytest.mark.parametrize("wrap", ["checkpoint", "scan", "checkpoint in scan"])
def test_running_statistics_of_a_body_are_those_of_the_plain_loop(mode: Any, wrap: str) -> None:
    xs = RANDOM.normal(size=(4, 5, 3))
    norms = [nn.BatchNorm1d(3, dtype=tg.float64) for _ in range(2)]

    def plain(xs: tg.Tensor) -> tg.Tensor:
        return tg.stack([norms[0](x) for x in xs]).sum()

    def wrapped(xs: tg.Tensor) -> tg.Tensor:
        layer = tg.checkpoint(norms[1]) if "checkpoint" in wrap else norms[1]
        if "scan" in wrap:
            return tg.scan(lambda c, x: (c, layer(x)), tg.asarray(0), xs)[1].sum()
        return tg.stack([layer(x) for x in xs]).sum()

    values = [mode(tg.value_and_grad(f))(tg.asarray(xs)) for f in (plain, wrapped)]

    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)
    for a, b in zip(norms[0].buffers(), norms[1].buffers(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    assert norms[1].num_batches_tracked.item() == 4


# ---- refusals


def test_what_a_loop_cannot_take_is_said_before_it_runs() -> None:
    zero, xs = tg.asarray(0.0), tg.ones((4, 2))

    with pytest.raises(GraphError, match=r"leaf 0 is float32\[\] and becomes float32\[2\]"):
        tg.scan(lambda c, x: (c + x, None), zero, xs)
    with pytest.raises(GraphError, match="must keep its nest"):
        tg.scan(lambda c, x: ((c, c), None), zero, xs)
    with pytest.raises(GraphError, match="must return a pair"):
        tg.scan(lambda c, x: c, zero, xs)
    with pytest.raises(ShapeError, match=r"they say \[3, 4\]"):
        tg.scan(lambda c, x: (c, None), zero, xs, length=3)
    with pytest.raises(ShapeError, match="a first axis to go along"):
        tg.scan(lambda c, x: (c, None), zero, zero)
    with pytest.raises(GraphError, match="takes xs, or a length"):
        tg.scan(lambda c, x: (c, None), zero)
    with pytest.raises(GraphError, match=r"a bool scalar, not float32\[\]"):
        tg.cond(zero, lambda: zero, lambda: zero)
    with pytest.raises(GraphError, match=r"branch 0 returns \(float32\[4,2\]\) and branch 1 \(float32\[\]\)"):
        tg.cond(zero > 1, lambda: zero, lambda: xs)
    with pytest.raises(GraphError, match="must return the same nest"):
        tg.switch(tg.asarray(1), [lambda: zero, lambda: [zero]])
    with pytest.raises(GraphError, match=r"must return a bool scalar, not \(float32\[\]\)"):
        tg.while_loop(lambda c: c, lambda c: c, zero, max_trips=3)


def test_a_variable_is_not_assigned_where_it_cannot_be_handed_out() -> None:
    v, flag = tg.Variable(tg.zeros(2)), tg.asarray(True)

    def assigning(*_: tg.Tensor) -> tg.Tensor:
        v.assign(v + 1)
        return v * 1

    for call in (
        lambda: tg.cond(flag, assigning, assigning),
        lambda: tg.vmap(assigning)(tg.zeros(3)),
        lambda: tg.while_loop(lambda x: x.sum() < 1, assigning, tg.zeros(2), max_trips=3),
        lambda: tg.scan(lambda c, x: (c, tg.cond(flag, assigning, assigning)), tg.asarray(0), length=3),
    ):
        with pytest.raises(TraceError, match="return the value and assign it outside"):
            call()
    assert v.tolist() == [0.0, 0.0]


def test_too_many_trips_are_refused() -> None:
    last, _ = tg.scan(lambda c, _: (c + 1, None), tg.asarray(0), length=2**40)

    with pytest.raises(TooExpensive, match="scan"):
        last.item()


def test_errors_in_a_body_name_op_and_line_and_the_session_goes_on() -> None:
    table = tg.asarray([1.0, 2.0])

    def body(c: tg.Tensor, i: tg.Tensor) -> Any:
        return c + tg.take(table, i, axis=0), None

    here = body.__code__.co_firstlineno + 1
    start = tg.asarray(0.0)
    total, _ = tg.scan(body, start, tg.asarray([0, 1, 2]))

    with pytest.raises(IndexRange, match="gather") as found:
        total.item()
    assert found.value.location is not None
    assert f"test_control_flow.py:{here}" in found.value.location
    with pytest.raises(ExecutionError, match="has made its 5 trips"):
        tg.while_loop(lambda c: c < 9, lambda c: c * 1, tg.asarray(1.0), max_trips=5).item()

    assert (table + 1).tolist() == [2.0, 3.0]
