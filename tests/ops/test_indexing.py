"""x[key] and x[key] = y follow NumPy: values, gradients, and refusals."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, IndexRange, ShapeError, TraceError
from telegrad.ir import Value, new_input
from telegrad.ir import types as t
from telegrad.ir.types import Type
from telegrad.ops import indexing

from tests.ops.checks import Array, call, check_gradients

X = np.random.default_rng(0).normal(size=(3, 4, 2, 3))
I = np.array([0, -1, 2])
J = np.array([[1], [0]])

BASIC: list[Any] = [
    0, -1, np.int64(1), np.uint8(2), (), ..., None, (..., 0), (0, ...), (1, 2, 1, 0),
    slice(None), slice(1, None), slice(None, -1), slice(None, None, -1), slice(None, None, 2),
    slice(2, 0, -1), slice(5, 100), slice(-100, 2), slice(2, 1),
    slice(None, None, -100), (slice(None), slice(3, None, -2)), (None, 0, None, ..., None), (0, slice(1, 3), ..., -1),
    (slice(None), None, slice(1, 2)), np.array(1),
]  # fmt: skip
ADVANCED: list[Any] = [
    I, J, (I,), (I, I), (I, ..., I), (slice(None), I), (slice(None), I, I % 2), (slice(None), I, slice(None), I),
    (I, slice(None), I % 2), (0, I), (I, 0), (slice(None), 0, I % 2), (0, slice(None), I % 2), (0, slice(None), 1, I),
    (slice(None), 0, slice(None), I), (J, I), (slice(None), J, I % 2), (None, I), (I, None), (I, None, I),
    (slice(None), I, None, 0), ([0, 1], [1, 2]), [2, 0], [[0, 1], [2, 0]], [], (slice(None), []), range(2),
    (slice(1, None), I % 2), (slice(None, None, -1), I), (..., I), (..., I % 2, I), (..., 0, I), (I.astype(np.int8), J),
    (slice(None), np.array(1), I % 2), (I, slice(2, 0, -1)),
]  # fmt: skip


def as_operands(key: Any) -> tuple[Any, list[Array]]:
    """The key with integer arrays replaced by numbers of operands."""
    arrays: list[Array] = []

    def replace(part: Any) -> Any:
        if isinstance(part, np.ndarray) and part.ndim:
            arrays.append(part)
            return ("operand", len(arrays) - 1)
        return part

    return (tuple(replace(p) for p in key) if isinstance(key, tuple) else replace(key)), arrays


def with_operands(key: Any, operands: tuple[Value, ...]) -> Any:
    def replace(part: Any) -> Any:
        return operands[part[1]] if isinstance(part, tuple) and part[:1] == ("operand",) else part

    if isinstance(key, tuple) and key[:1] != ("operand",):
        return tuple(replace(p) for p in key)
    return replace(key)


@pytest.mark.parametrize("key", [*BASIC, *ADVANCED], ids=str)
def test_getitem_follows_numpy(key: Any) -> None:
    form, arrays = as_operands(key)

    found = call(lambda x, *operands: x[with_operands(form, operands)], X, *arrays)

    np.testing.assert_array_equal(found, X[key if not isinstance(key, range) else list(key)])
    assert found.shape == X[key if not isinstance(key, range) else list(key)].shape


@pytest.mark.parametrize("key", [I, (I, I), (slice(None), J, I % 2), (0, I)], ids=str)
def test_integer_arrays_may_stand_in_the_key_as_they_are(key: Any) -> None:
    np.testing.assert_array_equal(call(lambda x: x[key], X), X[key])


@pytest.mark.parametrize(
    "key",
    [0, (..., 0), slice(None, None, -2), (None, 1, ..., None), (slice(0, 0),), I, (0, slice(None), I % 2), (J, I)],
    ids=str,
)
def test_gradients_of_getitem(key: Any) -> None:
    form, arrays = as_operands(key)
    x = X[:, :3, :, :1] if not isinstance(key, tuple) or len(key) < 3 or key[2] is not I else X[:, :2]

    check_gradients(lambda v, *operands: v[with_operands(form, operands)], [x, *arrays], name=f"getitem {key}", order=2)


@pytest.mark.parametrize("key", [*BASIC, *ADVANCED], ids=str)
def test_assignment_follows_numpy(key: Any) -> None:
    plain = list(key) if isinstance(key, range) else key
    form, arrays = as_operands(key)
    selected = X[plain]
    for new in (np.float64(7.0), np.random.default_rng(1).normal(size=selected.shape)):
        wanted = X.copy()
        wanted[plain] = new

        found = call(
            lambda x, y, *rest: indexing.set_items(x, with_operands(form, rest), y), X, np.asarray(new), *arrays
        )

        np.testing.assert_array_equal(found, wanted)


def test_assignment_broadcasts_and_takes_python_numbers() -> None:
    wanted = X.copy()
    wanted[1:, ::2] = X[0, 0]

    np.testing.assert_array_equal(
        call(lambda x, y: indexing.set_items(x, (slice(1, None), slice(None, None, 2)), y), X, X[0, 0]), wanted
    )
    assert (call(lambda x: indexing.set_items(x, 0, 3), X)[0] == 3.0).all()


@pytest.mark.parametrize(
    "key", [(0,), (slice(1, None), 0), (np.array([0, 2, 0]),), (np.array([1, 1]), np.array([0, 0]))], ids=str
)
def test_gradients_of_assignment_go_to_what_is_still_there(key: Any) -> None:
    x = X[:, :2, 0, 0]
    y = np.random.default_rng(2).normal(size=x[key].shape)
    form, arrays = as_operands(key)

    check_gradients(
        lambda v, w, *rest: indexing.set_items(v, with_operands(form, rest), w),
        [x, y, *arrays],
        name=f"set {key}",
        order=2,
    )


@given(
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4).flatmap(
        lambda s: st.tuples(
            st.just(s),
            st.one_of(
                hnp.basic_indices(s, allow_newaxis=True, max_dims=6),
                hnp.integer_array_indices(s, result_shape=hnp.array_shapes(max_dims=2, min_side=0, max_side=3)),
            ),
        )
    )
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_key_that_numpy_takes(case: tuple[tuple[int, ...], Any]) -> None:
    shape, key = case
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)

    np.testing.assert_array_equal(call(lambda v: v[key], x), x[key])


# ---- refusals

VALUE = new_input(Type((3, 4), t.float32))
MASK = new_input(Type((3, 4), t.bool_))


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (3, AxisError, "index 3 is out of range for axis 0 of size 3"),
        ((0, -5), AxisError, "index -5 is out of range for axis 1 of size 4"),
        ((0, 0, 0), AxisError, "3 indices are too many for the 2 axes"),
        ((..., ...), AxisError, "one ellipsis"),
        (MASK, TraceError, "depends on data"),
        ((MASK, ...), TraceError, "depends on data"),
        ((slice(None), MASK[0]), TraceError, "depends on data"),
        (MASK[:2], AxisError, r"a mask of shape \[2, 4\] does not fit axes of sizes \[3, 4\]"),
        ((MASK, 0), AxisError, "3 indices are too many"),
        ((0, True), GraphError, "stands alone"),
        ([True, False, True], GraphError, "a mask is a tensor"),
        (np.array([True, False, True]), GraphError, "a mask is a tensor"),
        (VALUE, DTypeError, "must be integers"),
        ([0.5], DTypeError, "must be integers"),
        (0.5, GraphError, "float is no index"),
        ("a", GraphError, "str is no index"),
        (slice(None, None, 0), AxisError, "step"),
        (slice(0.5), AxisError, "slice"),
    ],
    ids=str,
)
def test_keys_that_are_refused(key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        VALUE[key]


def test_indices_of_shapes_that_do_not_fit() -> None:
    i, j = new_input(Type((2,), t.int64)), new_input(Type((3,), t.int64))

    with pytest.raises(ShapeError):
        VALUE[i, j]


def test_an_assigned_value_must_fit() -> None:
    with pytest.raises(ShapeError, match=r"y of shape \[3\] does not broadcast to x\[key\], \[4\]"):
        indexing.set_items(VALUE, 0, new_input(Type((3,), t.float32)))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, i: x[i], lambda x, i: x[:, i], lambda x, i: x[i, i], lambda x, i: x[i, 0],
        lambda x, i: ops.take(x, i, axis=1), lambda x, i: ops.take(x, i, axis=0),
        lambda x, i: ops.take_along_axis(x, ops.expand_dims(i, axis=0), axis=1),
        lambda x, i: ops.scatter_add(ops.astype(i, t.float64), i, rows=3), lambda x, i: indexing.set_items(x, i, 0.0),
        lambda x, i: ops.one_hot(i, 3),
    ],
)  # fmt: skip
def test_an_index_out_of_range_is_an_error_naming_index_and_size(f: Any) -> None:
    for index, size in product((7, -8), (3,)):
        with pytest.raises(IndexRange, match=f"index {index} is out of range for an axis of size {size}") as caught:
            call(f, np.zeros((3, 3)), np.array([0, index]))
        assert (caught.value.details["index"], caught.value.details["size"]) == (index, size)


def test_the_second_of_two_indices_is_checked_against_its_own_axis() -> None:
    # 2 * 4 + (-5) is inside the joined axes, but -5 is outside of the second one
    with pytest.raises(IndexRange, match="index -5 is out of range for an axis of size 4"):
        call(lambda x, i, j: x[i, j], np.zeros((3, 4)), np.array([2]), np.array([-5]))
    with pytest.raises(IndexRange, match="index 4 is out of range for an axis of size 4"):
        call(lambda x, i, j: x[i, j], np.zeros((3, 4)), np.array([0]), np.array([4]))


def test_an_empty_index_into_an_empty_axis_is_fine() -> None:
    assert call(lambda x, i: x[i], np.zeros((0, 2)), np.zeros(0, np.int64)).shape == (0, 2)
    with pytest.raises(IndexRange):
        call(lambda x, i: x[i], np.zeros((0, 2)), np.zeros(1, np.int64))


def test_one_hot_wants_classes() -> None:
    assert call(lambda i: ops.one_hot(i, 300), np.array([255], np.uint8))[0].argmax() == 255
    with pytest.raises(IndexRange):
        call(lambda i: ops.one_hot(i, 3), np.array([-1]))
