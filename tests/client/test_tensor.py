"""Lazy tensors: what they are, what they compute, what a read brings, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import DTypeError, GraphError, IndexRange, ShapeError, VariableChanged

pytestmark = pytest.mark.usefixtures("session")


def test_operators_follow_numpy() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = tg.asarray(a)

    y = (x * 2.0 + 1) / (x - 0.5) - 3 * x

    np.testing.assert_allclose(y.numpy(), (a * 2 + 1) / (a - 0.5) - 3 * a, rtol=1e-6)
    assert (y.shape, y.dtype, y.ndim, y.size) == ((2, 3), tg.float32, 2, 6)


def test_python_numbers_yield_to_the_dtype_of_the_tensor() -> None:
    assert (tg.asarray(np.ones(2, np.float64)) * 0.5).dtype is tg.float64
    assert (tg.asarray(np.ones(2, np.float16)) + 1).dtype is tg.float16
    assert (tg.asarray([1, 2]) * 2.5).dtype is tg.float32
    assert (tg.asarray([1, 2]) + 1).dtype is tg.int64


def test_comparisons_are_elementwise() -> None:
    x = tg.asarray([1.0, 2.0, 3.0])

    assert (x == 2.0).tolist() == [False, True, False]
    assert (x != 2.0).tolist() == [True, False, True]
    assert (x >= 2).tolist() == [False, True, True]


def test_indexing_follows_numpy() -> None:
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    x = tg.asarray(a)

    for key in [0, -1, slice(1, None), (0, slice(None, None, -1)), (..., 1), (None, 1), (slice(None), [0, 2])]:
        np.testing.assert_array_equal(x[key].numpy(), a[key])


def test_integer_tensors_gather() -> None:
    a = np.arange(12, dtype=np.float32).reshape(4, 3)

    np.testing.assert_array_equal(tg.asarray(a)[tg.asarray([3, 0, 0])].numpy(), a[[3, 0, 0]])


def test_assignment_to_an_index_rebinds_only_this_handle() -> None:
    x = tg.zeros((2, 3))
    y = x

    before = x + 0
    x[0, 1:] = 5.0

    assert x.tolist() == [[0, 5, 5], [0, 0, 0]]
    assert before.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert y is x


def test_what_comes_back_is_the_callers_own() -> None:
    for n in (4, 1000, 100_000):
        a = np.ones(n, np.float32)
        x = tg.asarray(a)
        a[:] = 2
        got = x.numpy()
        got[:] = 3

        assert x.numpy().max() == 1


def test_item_and_conversions() -> None:
    x = tg.asarray(2.5)

    assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
    with pytest.raises(ShapeError, match="one element"):
        tg.zeros((2,)).item()


def test_repr_shows_values_shape_dtype_and_device() -> None:
    text = repr(tg.asarray([1.0, 2.0]))

    assert "1., 2." in text and "shape=(2,)" in text and "float32" in text and "numpy" in text


def test_shape_errors_name_op_and_axis_before_anything_runs() -> None:
    with pytest.raises(ShapeError, match=r"add\(\[2, 3\], \[4\]\): axis -1 has sizes \(3, 4\)"):
        tg.zeros((2, 3)) + tg.zeros((4,))


def test_unoffered_contents_are_refused() -> None:
    for bad in (np.array([1 + 2j]), np.array(["a"]), np.array([None]), "text", [[1.0], [1.0, 2.0]]):
        with pytest.raises(DTypeError):
            tg.asarray(bad)


def test_backward_gives_gradients_to_leaves() -> None:
    x = tg.asarray([1.0, 2.0, 3.0]).requires_grad_()

    (x * x).sum().backward()

    assert x.grad is not None
    assert x.grad.tolist() == [2, 4, 6]


def test_gradients_add_up_until_they_are_cleared() -> None:
    x = tg.asarray([1.0, 2.0]).requires_grad_()

    for _ in range(3):
        (x * 2).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6, 6]
    x.grad = None
    (x * 2).sum().backward()

    assert x.grad is not None and x.grad.tolist() == [2, 2]


def test_reading_the_loss_before_backward_is_allowed() -> None:
    w = tg.Parameter(np.ones(3, np.float32))
    loss = (w * w).sum()

    assert loss.item() == 3
    loss.backward()

    assert w.grad is not None and w.grad.tolist() == [2, 2, 2]


def test_second_derivatives_by_two_backwards() -> None:
    x = tg.asarray(np.array([1.0, 2.0])).requires_grad_()
    (g,) = (tg.grad(lambda v: (v * v * v).sum())(x),)
    g.sum().backward()

    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [6, 12])


def test_backward_of_a_matrix_needs_a_cotangent() -> None:
    x = tg.ones((2, 2)).requires_grad_()

    with pytest.raises(ShapeError, match="gradient"):
        (x * 2).backward()
    (x * 2).backward(tg.asarray([[1.0, 0.0], [0.0, 3.0]]))

    assert x.grad is not None and x.grad.tolist() == [[2, 0], [0, 6]]


def test_backward_without_a_leaf_says_what_to_do() -> None:
    with pytest.raises(GraphError, match="requires_grad"):
        tg.ones(()).backward()


def test_detach_and_no_grad_stop_gradients() -> None:
    x = tg.asarray([3.0]).requires_grad_()
    with tg.no_grad():
        c = x * 2

    ((x * x.detach()) + c * x).sum().backward()

    assert x.grad is not None and x.grad.tolist() == [9]


def test_a_pending_read_sees_the_version_that_it_named() -> None:
    v = tg.Variable(np.zeros(2, np.float32))
    old = v + 0
    view = v.detach()
    v.assign(v + 1)
    v.assign(v * 5)

    assert (old.tolist(), view.tolist(), v.tolist()) == ([0, 0], [0, 0], [5, 5])


def test_a_variable_keeps_its_type() -> None:
    v = tg.Variable(np.zeros(2, np.float32))

    with pytest.raises(ShapeError, match="cannot become"):
        v.assign(tg.zeros((3,)))
    with pytest.raises(DTypeError, match="cannot become"):
        v.assign(tg.zeros((2,), dtype=tg.float64))
    v.assign([1, 2])

    assert v.tolist() == [1, 2]


def test_backward_through_a_version_that_is_gone_names_both_lines() -> None:
    w = tg.Parameter(np.ones(2, np.float32), name="weight")
    loss = (w * w).sum()
    loss.item()
    w.assign(w * 2)
    w.numpy()
    loss.backward()

    with pytest.raises(VariableChanged, match=r"'weight'.*test_tensor.py"):
        assert w.grad is not None
        w.grad.numpy()


def test_the_session_survives_an_error_and_names_the_line() -> None:
    x = tg.asarray(np.arange(4, dtype=np.float32))
    index = tg.asarray([1, 9])
    bad = tg.take(x, index, axis=0)  # the line

    with pytest.raises(IndexRange, match="9") as caught:
        bad.numpy()

    assert caught.value.location is not None and "test_tensor.py" in caught.value.location
    assert (x + 1).tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_long_loop_without_reads_does_not_grow() -> None:
    x = tg.zeros(())
    for _ in range(25_000):
        x = x + 1

    assert x.item() == 25_000


def test_an_eager_loop_compiles_once(session: tg.Session) -> None:
    x = tg.asarray(np.ones(300, np.float32))
    known: set[int] = set()
    for i in range(5):
        x = x * (1.0 + i) + 0.5
        x.numpy()
        known.add(len(session.commands._functions))  # pyright: ignore[reportPrivateUsage]

    assert known == {1}
