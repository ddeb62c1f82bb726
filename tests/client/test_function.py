"""Functions: traced once for each signature, replayed by id."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import TraceError

pytestmark = pytest.mark.usefixtures("session")


def test_a_function_is_traced_once_for_each_signature() -> None:
    traced: list[tuple[int, ...]] = []

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        traced.append(x.shape)
        return x * 2

    for _ in range(3):
        assert f(tg.ones((2,))).tolist() == [2, 2]
    assert f(tg.ones((3,))).tolist() == [2, 2, 2]

    assert traced == [(2,), (3,)]


def test_numbers_are_inputs_and_other_values_are_part_of_the_signature() -> None:
    traces: list[Any] = []

    @tg.function
    def f(x: tg.Tensor, scale: float, mode: str) -> tg.Tensor:
        traces.append(mode)
        return x * scale if mode == "times" else x + scale

    x = tg.asarray(np.ones(2))
    assert [f(x, s, "times").tolist() for s in (1.5, 2.5)] == [[1.5, 1.5], [2.5, 2.5]]
    assert f(x, 2.0, "plus").tolist() == [3, 3]

    assert traces == ["times", "plus"]
    assert f(x, 0.1, "times").numpy()[0] == 0.1  # a number meets float64 in full precision


def test_static_numbers_choose_shapes() -> None:
    @tg.function(static=["n"])
    def f(x: tg.Tensor, n: int) -> tg.Tensor:
        return tg.stack([x] * n)

    assert f(tg.ones(()), n=3).shape == (3,)
    assert f(tg.ones(()), 4).shape == (4,)


def test_nests_go_in_and_out() -> None:
    @dataclasses.dataclass
    class Batch:
        x: Any
        y: Any

    @tg.function
    def f(batch: Batch, scales: dict[str, Any]) -> dict[str, Any]:
        return {"sum": [batch.x + batch.y, batch.x * scales["a"]], "name": "ok", "none": None}

    out = f(Batch(tg.ones((2,)), np.ones(2, np.float32)), {"a": 3.0})

    assert out["sum"][0].tolist() == [2, 2]
    assert out["sum"][1].tolist() == [3, 3]
    assert (out["name"], out["none"]) == ("ok", None)


def test_captured_tensors_are_constants_and_variables_are_live() -> None:
    c = tg.asarray(np.full(2000, 2.0, np.float32))
    v = tg.Variable(np.zeros(2000, np.float32))

    @tg.function
    def f() -> tg.Tensor:
        return (c * v).sum()

    first = f().item()
    v.assign(v + 1)

    assert (first, f().item()) == (0, 4000)


def test_updates_of_variables_happen_at_each_call() -> None:
    v = tg.Variable(0.0)

    @tg.function
    def count() -> tg.Tensor:
        v.assign(v + 1)
        return v * 10

    assert [count().item() for _ in range(3)] == [10, 20, 30]
    assert v.item() == 3


def test_backward_inside_means_what_it_means_outside() -> None:
    w = tg.Parameter(np.array([1.0, 2.0]))

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        loss = (w * x).sum()
        loss.backward()
        return loss

    x = tg.asarray(np.array([3.0, 4.0]))
    f(x)
    assert w.grad is not None and w.grad.tolist() == [3, 4]
    f(x)
    assert w.grad is not None and w.grad.tolist() == [6, 8]
    w.grad = None
    f(x)

    assert w.grad is not None and w.grad.tolist() == [3, 4]


def test_a_loss_from_a_function_can_be_differentiated_outside() -> None:
    w = tg.Parameter(np.array([1.0, 2.0]))

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        return (w * w * x).sum()

    f(tg.asarray(np.array([3.0, 4.0]))).backward()

    assert w.grad is not None and w.grad.tolist() == [6, 16]


@pytest.mark.parametrize(
    "use",
    [float, bool, repr, lambda x: x.numpy(), lambda x: [0][x]],
    ids=["float", "bool", "repr", "numpy", "index"],
)
def test_reading_in_a_trace_names_the_line_and_the_way_out(use: Any) -> None:
    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        if use is repr:
            raise TraceError(use(x) + " test_function.py where")
        use(x)
        return x

    with pytest.raises(TraceError, match=r"(?s)(test_function.py.*where|<traced)"):
        f(tg.ones(()))


def test_a_traced_tensor_used_after_the_trace_is_refused() -> None:
    kept: list[tg.Tensor] = []

    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        kept.append(x * 2)
        return x

    f(tg.ones(()))

    with pytest.raises(TraceError, match="return it"):
        kept[0] + 1


def test_a_function_that_keeps_retracing_warns_and_names_the_argument() -> None:
    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        return x + 1

    with pytest.warns(UserWarning, match="argument 0"):
        for n in range(1, 12):
            f(tg.ones((n,)))


def test_random_numbers_differ_between_calls_and_repeat_between_sessions(session: tg.Session) -> None:
    @tg.function
    def f() -> tuple[tg.Tensor, tg.Tensor]:
        return tg.random.uniform((4,)), tg.random.uniform((4,))

    a, b = (x.tolist() for x in f())
    c, _ = (x.tolist() for x in f())
    assert len({str(a), str(b), str(c)}) == 3

    with tg.connect(backend="numpy", new=True):
        assert f()[0].tolist() == a


def test_a_failed_call_changes_nothing_and_training_goes_on_from_the_last_good_step() -> None:
    table = tg.asarray(np.arange(1000, dtype=np.float32))
    w = tg.Variable(0.0)

    @tg.function
    def step(i: tg.Tensor) -> tg.Tensor:
        w.assign(w + 1)
        return tg.take(table, i, axis=0)

    good, bad = tg.asarray([5]), tg.asarray([5000])
    step(good)
    step(bad)
    step(good)

    with pytest.raises(tg.errors.IndexRange):
        w.item()
    assert w.item() == 1
    step(good)
    assert w.item() == 2


def test_a_step_is_one_message_up_and_none_awaited(session: tg.Session) -> None:
    w = tg.Parameter(np.ones(8, np.float32))
    optimizer = tg.optim.AdamW([w])
    x = tg.asarray(np.ones((100, 8), np.float32))

    @tg.function
    def step(rows: tg.Tensor) -> tg.Tensor:
        loss = (x[rows] @ w).sum()
        optimizer.minimize(loss)
        return loss

    rows = np.arange(10)
    step(rows).item()
    before = session.commands.sequence
    for _ in range(200):
        loss = step(rows)

    assert session.commands.sequence - before <= 200 + 1  # and now and then the names that are no longer wanted
    assert loss.item() != 0


def test_methods_can_be_functions() -> None:
    class Model:
        def __init__(self) -> None:
            self.w = tg.Variable(np.full(2, 3.0, np.float32))

        @tg.function
        def forward(self, x: tg.Tensor) -> tg.Tensor:
            return self.w * x

    model = Model()

    assert model.forward(tg.ones((2,))).tolist() == [3, 3]


def test_a_number_in_a_trace_is_one_constant_and_keeps_its_kind_and_sign() -> None:
    @tg.function
    def many(x: tg.Tensor, b: tg.Tensor) -> tuple[tg.Tensor, ...]:
        return x * 0.0, x * -0.0, x + 1, x + True, x + 1.0, b + 1, b + 1.5, tg.where(b, 1, x)

    x, b = tg.asarray(np.array([2.0, -3.0], np.float32)), tg.asarray(np.array([True, False]))
    zero, minus_zero, *rest = many(x, b)
    assert list(np.signbit(zero.numpy())) == [False, True]
    assert list(np.signbit(minus_zero.numpy())) == [True, False]
    assert [list(y.numpy()) for y in rest] == [[3, -2], [3, -2], [3, -2], [2, 1], [2.5, 1.5], [1, -3]]
    assert [y.dtype for y in rest] == [tg.float32] * 3 + [tg.int64] + [tg.float32] * 2


def test_a_number_used_inside_and_outside_a_checkpoint_belongs_to_both() -> None:
    @tg.function
    def f(x: tg.Tensor) -> tg.Tensor:
        y = tg.checkpoint(lambda z: tg.sin(z * 1.5) * 1.5)(x * 1.5)
        return tg.grad(lambda z: (tg.checkpoint(lambda w: w * 1.5 * w)(z) * 1.5).sum())(y)

    x = np.array([0.5, 2.0], np.float32)
    y = np.sin(x * 1.5 * 1.5) * 1.5
    np.testing.assert_allclose(f(tg.asarray(x)).numpy(), 2 * 1.5 * 1.5 * y, rtol=1e-6)
