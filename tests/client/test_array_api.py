"""What the array API's conformance suite found, by kind, so that it stays found. `scripts/array-api` runs the suite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError, TraceError

pytestmark = pytest.mark.usefixtures("session")

X = np.arange(12, dtype=np.float32).reshape(3, 4)
ROWS = np.array([True, False, True])
CELLS = X % 3 == 1


def both(key: Any) -> tuple[Any, Any]:
    """A key for a tensor and the same for an array: arrays become tensors."""

    def part(p: Any) -> Any:
        return tg.asarray(p) if isinstance(p, np.ndarray) else p

    return (tuple(map(part, key)) if isinstance(key, tuple) else part(key)), key


# ---- masks: how many elements they select is read from them

MASKS: list[Any] = [
    CELLS, ROWS, (ROWS, ...), (CELLS, ...), (..., CELLS[0]), (slice(None), CELLS[1]), (ROWS, 1), (ROWS, slice(1, 3)),
    (None, CELLS), (ROWS, np.array([3, 0])), np.zeros_like(CELLS), np.ones(3, bool), [True, False, True],
    True, False, np.True_, np.array(True), np.array(False),
]  # fmt: skip


@pytest.mark.parametrize("key", MASKS, ids=repr)
def test_a_mask_selects_as_in_numpy(key: Any) -> None:
    ours, theirs = both(key)

    np.testing.assert_array_equal(tg.asarray(X)[ours].numpy(), X[theirs])


@pytest.mark.parametrize("mask", [np.ones(0, bool), np.ones((3, 0), bool)], ids=repr)
def test_a_mask_of_size_0_selects_nothing_as_the_standard_says(mask: Any) -> None:
    x = tg.asarray(X)

    for key in (tg.asarray(mask), mask):
        assert x[key].shape == (0, *X.shape[mask.ndim :])
        x[key] = 5.0
        x[key] = tg.ones((0, *X.shape[mask.ndim :]))
    np.testing.assert_array_equal(x.numpy(), X)


def test_a_mask_of_a_numpy_array_needs_no_round_trip_and_works_in_a_trace() -> None:
    @tg.function
    def selected(x: tg.Tensor) -> tg.Tensor:
        return x[ROWS]

    np.testing.assert_array_equal(selected(tg.asarray(X)).numpy(), X[ROWS])


@pytest.mark.parametrize("key", MASKS, ids=repr)
@pytest.mark.parametrize("new", [7.0, np.float32(8), np.array([9.0], np.float32)], ids=["number", "0-d", "1-d"])
def test_assignment_by_a_mask_follows_numpy(key: Any, new: Any) -> None:
    ours, theirs = both(key)
    x, wanted = tg.asarray(X), X.copy()

    x[ours] = new if isinstance(new, float) else tg.asarray(new)
    wanted[theirs] = new

    np.testing.assert_array_equal(x.numpy(), wanted)


def test_assignment_of_a_line_by_a_mask() -> None:
    x, wanted = tg.asarray(X), X.copy()

    x[tg.asarray(CELLS)] = tg.arange(4, dtype=tg.float32)
    wanted[CELLS] = np.arange(4)

    np.testing.assert_array_equal(x.numpy(), wanted)


def test_gradients_flow_through_a_mask_as_through_a_gather() -> None:
    x = tg.asarray(X).requires_grad_()

    (x[x > 4.0] ** 2).sum().backward()

    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.where(X > 4, 2 * X, 0))


@pytest.mark.parametrize(
    "unknown",
    [
        lambda x: x[x > 4],
        lambda x: x[:, x[0] > 4],
        lambda x: tg.nonzero(x),
        lambda x: tg.unique_values(x),
        lambda x: tg.unique_all(x),
        lambda x: tg.repeat(x, tg.astype(x[0] * 0, tg.int64), axis=1),
    ],
)
def test_a_shape_that_depends_on_data_is_refused_in_a_trace(unknown: Callable[[tg.Tensor], Any]) -> None:
    with pytest.raises(TraceError, match=r"depends on data.*test_array_api.py.*where"):
        tg.function(unknown)(tg.asarray(X))


def test_in_a_trace_one_number_can_be_assigned_by_a_mask_and_size_says_how_many() -> None:
    @tg.function
    def step(x: tg.Tensor) -> Any:
        y = x * 1.0
        y[x > 4] = 0.0
        return y, tg.nonzero(x > 8, size=4, fill_value=-1), tg.unique_values(x % 3, size=3)

    y, places, values = step(tg.asarray(X))

    np.testing.assert_array_equal(y.numpy(), np.where(X > 4, 0, X))
    assert [p.tolist() for p in places] == [[2, 2, 2, -1], [1, 2, 3, -1]]
    assert values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "x",
    [X % 3, CELLS, np.array([3, 1, 3, 2, 1], np.uint8), np.array([np.nan, 1.0, np.nan]), np.zeros((0, 2), np.int32)],
    ids=["float", "bool", "uint8", "nan", "empty"],
)
def test_places_and_different_elements_follow_numpy(x: Any) -> None:
    ours = tg.asarray(x)

    for found, wanted in zip(tg.nonzero(ours), np.nonzero(x), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)
    assert tg.unique_all(ours)._fields == ("values", "indices", "inverse_indices", "counts")
    for found, wanted in zip(tg.unique_all(ours), np.unique_all(x), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)
    for found, wanted in zip(tg.unique_counts(ours), np.unique_counts(x), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)
    for found, wanted in zip(tg.unique_inverse(ours), np.unique_inverse(x), strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(tg.unique_values(ours).numpy(), np.unique(x, equal_nan=False))


@pytest.mark.parametrize(("repeats", "axis"), [([1, 0, 2], 0), ([2], 1), ([0] * 12, None), ([1, 2, 0, 3], -1)])
def test_elements_repeat_as_often_as_a_tensor_says(repeats: list[int], axis: int | None) -> None:
    found = tg.repeat(tg.asarray(X), tg.asarray(repeats, dtype=tg.int8), axis=axis)

    np.testing.assert_array_equal(found.numpy(), np.repeat(X, repeats, axis=axis))


# ---- handles: what NumPy would have copied is another handle

SAME: dict[str, Callable[[tg.Tensor], tg.Tensor]] = {
    "asarray": lambda x: tg.asarray(x, copy=True),
    "astype": lambda x: x.astype(x.dtype),
    "from_dlpack": lambda x: tg.from_dlpack(x, copy=True),
    "reshape": lambda x: tg.reshape(x, x.shape, copy=True),
    "plus": lambda x: +x,
    "positive": tg.positive,
    "pow": lambda x: x**1,
    "clip": tg.clip,
    "concat": lambda x: tg.concat([x]),
    "clone": lambda x: x.clone(),
    "conj": tg.conj,
    "real": tg.real,
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("kind", [tg.asarray, tg.Variable])
def test_a_copy_does_not_change_with_the_original(name: str, kind: Callable[[Any], tg.Tensor]) -> None:
    x = kind(np.array([-0.0, 1.0]))

    y = SAME[name](x)
    x[1] = 5.0
    z = SAME[name](x)
    z[1] = 6.0

    assert (x.tolist(), y.tolist(), z.tolist()) == ([0.0, 5.0], [0.0, 1.0], [0.0, 6.0])
    assert math.copysign(1.0, y.tolist()[0]) == -1.0


@pytest.mark.parametrize("function", [tg.floor, tg.ceil, tg.round, tg.trunc, tg.abs], ids=lambda f: f.__name__)
def test_rounding_integers_makes_another_handle(function: Callable[[tg.Tensor], tg.Tensor]) -> None:
    x = tg.asarray([1, 2], dtype=tg.uint8)

    y = function(x)
    y[0] = 9

    assert x.tolist() == [1, 2]


def test_copy_decides_what_asarray_gives() -> None:
    x = tg.asarray([1.0])

    assert tg.asarray(x) is x and tg.asarray(x, copy=False) is x and x.astype(tg.float32, copy=False) is x
    with pytest.raises(ValueError, match="leave copy out"):
        tg.asarray([1.0], copy=False)
    with pytest.raises(ValueError, match="only by a copy"):
        tg.asarray(x, dtype=tg.int8, copy=False)


# ---- in-place operators

IN_PLACE: dict[str, tuple[Any, Any, Callable[[Any, Any], Any]]] = {
    "+=": ([5.0, 6.0], 2, lambda x, y: x.__iadd__(y)),
    "-=": ([5.0, 6.0], 2.5, lambda x, y: x.__isub__(y)),
    "*=": ([5.0, 6.0], 2.5, lambda x, y: x.__imul__(y)),
    "/=": ([5.0, 6.0], 2, lambda x, y: x.__itruediv__(y)),
    "//=": ([5, 6], 2, lambda x, y: x.__ifloordiv__(y)),
    "%=": ([5, 6], 4, lambda x, y: x.__imod__(y)),
    "**=": ([5, 6], 2, lambda x, y: x.__ipow__(y)),
    "@=": ([[5.0, 6.0], [1.0, 2.0]], [[0.0, 1.0], [1.0, 0.0]], lambda x, y: x.__imatmul__(y)),
    "&=": ([5, 6], 3, lambda x, y: x.__iand__(y)),
    "|=": ([5, 6], 3, lambda x, y: x.__ior__(y)),
    "^=": ([5, 6], 3, lambda x, y: x.__ixor__(y)),
    "<<=": ([5, 6], 3, lambda x, y: x.__ilshift__(y)),
    ">>=": ([5, 6], 1, lambda x, y: x.__irshift__(y)),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("kind", [tg.asarray, tg.Variable])
def test_an_operator_in_place_changes_this_handle(name: str, kind: Callable[[Any], tg.Tensor]) -> None:
    start, operand, apply = IN_PLACE[name]
    x = kind(start)
    alias, before = x, x + 0

    x = apply(x, tg.asarray(operand) if isinstance(operand, list) else operand)
    wanted = apply(np.asarray(start), np.asarray(operand) if isinstance(operand, list) else operand)

    assert x is alias and type(x) is type(kind(start))
    np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-6)
    assert before.tolist() == start


@pytest.mark.parametrize(
    ("start", "operand", "error"),
    [([1, 2], 0.5, DTypeError), ([1.0], np.ones(1), DTypeError), ([1.0], np.ones(3, np.float32), ShapeError)],
)
def test_an_operator_in_place_keeps_the_type(start: Any, operand: Any, error: type[Exception]) -> None:
    x = tg.asarray(start)

    with pytest.raises(error, match=r"cannot become .* in place"):
        x += operand if isinstance(operand, float) else tg.asarray(operand)
    assert x.tolist() == start


def test_a_leaf_changes_in_place_only_without_gradients() -> None:
    x = tg.asarray([1.0, 2.0]).requires_grad_()
    w = tg.Parameter(np.ones(2, np.float32), name="w")

    for leaf in (x, w):
        with pytest.raises(GraphError, match="cannot change in place"):
            leaf += 1.0
        with pytest.raises(GraphError, match="cannot change in place"):
            leaf[0] = 1.0
    with tg.no_grad():
        x += 1.0
        w[0] = 4.0
    (x * x).sum().backward()
    (w * w).sum().backward()

    assert x.is_leaf and x.grad is not None and x.grad.tolist() == [4, 6]
    assert w.version == 1 and w.grad is not None and w.grad.tolist() == [8, 2]


def test_a_variable_changes_in_place_inside_a_function() -> None:
    steps = tg.Variable(np.zeros(2, np.int64))

    @tg.function
    def count() -> None:
        nonlocal steps
        steps += 1
        steps[0] = 7

    count()
    count()

    assert steps.tolist() == [7, 2]


def test_a_tensor_from_outside_cannot_change_in_place_inside_a_function() -> None:
    x = tg.zeros(300)

    @tg.function
    def change() -> tg.Tensor:
        x[0] = 1.0
        return x

    with pytest.raises(TraceError, match=r"from outside .* was changed in place"):
        change()
    assert x.tolist() == [0.0] * 300


# ---- the rest


@pytest.mark.parametrize(
    ("x", "y", "wanted"),
    [
        (math.inf, 2.0, math.inf), (math.inf, -2.0, -math.inf), (-math.inf, 2.0, -math.inf), (1.0, math.inf, 0.0),
        (1.0, -math.inf, -0.0), (-1.0, math.inf, -0.0), (math.inf, math.inf, math.nan), (7.0, 2.0, 3.0),
        (-7.0, 2.0, -4.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [tg.float64, tg.float32, tg.float16, tg.bfloat16], ids=str)
def test_floor_divide_of_infinities_is_the_quotient(dtype: tg.DType, x: float, y: float, wanted: float) -> None:
    found = float(tg.asarray(x, dtype=dtype) // tg.asarray(y, dtype=dtype))

    assert found == wanted or (math.isnan(found) and math.isnan(wanted))
    assert math.copysign(1.0, found) == math.copysign(1.0, wanted) or math.isnan(wanted)


def test_pythons_abs_works_on_every_dtype() -> None:
    assert abs(tg.asarray([-1.5, 2.0])).tolist() == [1.5, 2.0]
    assert abs(tg.asarray([-1, 2])).tolist() == [1, 2]
    assert abs(tg.asarray([3], dtype=tg.uint8)).tolist() == [3]


def test_a_nest_of_tensors_and_numbers_becomes_one_tensor() -> None:
    x = tg.asarray([1.0, 2.0]).requires_grad_()

    y = tg.asarray([[x[0], 3], [4.5, x[1] * 2]])
    y.sum().backward()

    assert y.dtype is tg.float32 and y.tolist() == [[1, 3], [4.5, 4]]
    assert x.grad is not None and x.grad.tolist() == [1, 2]


def test_elements_are_exchanged_with_other_libraries() -> None:
    torch = pytest.importorskip("torch")
    x = tg.asarray(X)

    assert x.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.from_dlpack(x), X)
    np.testing.assert_array_equal(torch.from_dlpack(x).numpy(), X)
    np.testing.assert_array_equal(tg.from_dlpack(torch.from_numpy(X)).numpy(), X)
    assert tg.from_dlpack(x) is x
    with pytest.raises(BufferError, match="leave copy out"):
        tg.from_dlpack(X, copy=False)
    with pytest.raises(BufferError, match="host's memory"):
        x.__dlpack__(dl_device=(2, 0))


def test_a_device_that_is_not_the_sessions_is_refused_wherever_one_is_named() -> None:
    x = tg.ones(2)
    makers: list[Callable[..., Any]] = [
        lambda **how: tg.zeros(2, **how), lambda **how: tg.ones(2, **how), lambda **how: tg.empty(2, **how),
        lambda **how: tg.full(2, 1, **how), lambda **how: tg.arange(2, **how), lambda **how: tg.eye(2, **how),
        lambda **how: tg.linspace(0, 1, 2, **how), lambda **how: tg.asarray(x, **how),
        lambda **how: tg.asarray([1], **how), lambda **how: tg.from_dlpack(x, **how),
    ]  # fmt: skip
    for make in makers:
        assert make(device=x.device).device == x.device
        with pytest.raises(GraphError, match="this session's device is"):
            make(device="abacus")


def test_the_namespace_says_what_it_offers() -> None:
    info = tg.__array_namespace_info__()

    assert info.capabilities() == {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 32}
    assert "float16" not in info.dtypes() and info.dtypes(kind="complex floating") == {}
    assert info.dtypes(kind="real floating") == {"float32": tg.float32, "float64": tg.float64}


def test_a_tolerance_for_each_matrix_of_a_stack() -> None:
    x = np.array([np.diag([1.0, 0.1]), np.diag([1.0, 0.1])])
    rtol = np.array([0.5, 0.01])

    np.testing.assert_allclose(tg.linalg.pinv(tg.asarray(x), rtol=tg.asarray(rtol)).numpy(), np.linalg.pinv(x, rtol))
    assert tg.linalg.matrix_rank(tg.asarray(x), rtol=tg.asarray(rtol)).tolist() == [1, 2]


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: tg.sum(x, axis=2), lambda x: tg.cumulative_sum(x, axis=-3), lambda x: tg.sort(x, axis=2),
        lambda x: tg.argmax(x, axis=2), lambda x: tg.take(x, tg.asarray([0]), axis=2), lambda x: tg.flip(x, axis=2),
        lambda x: tg.roll(x, 1, axis=2), lambda x: tg.concat([x, x], axis=2), lambda x: tg.stack([x, x], axis=3),
        lambda x: tg.expand_dims(x, axis=3), lambda x: tg.squeeze(x, axis=2), lambda x: tg.unstack(x, axis=2),
        lambda x: tg.diff(x, axis=2), lambda x: tg.repeat(x, 2, axis=2), lambda x: tg.count_nonzero(x, axis=2),
        lambda x: tg.take_along_axis(x, tg.asarray([[0]]), axis=2), lambda x: tg.moveaxis(x, 0, 2),
        lambda x: x[tg.asarray([True, False])],
    ],
)  # fmt: skip
def test_an_axis_that_is_not_there_is_an_index_error(refused: Callable[[tg.Tensor], Any]) -> None:
    with pytest.raises(AxisError):
        refused(tg.asarray(X))
    assert issubclass(AxisError, IndexError)
