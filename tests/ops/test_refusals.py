"""Bad graphs are refused by ``infer`` with one sentence, before anything runs (reliability A01 to A10)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError, TraceError, UnknownOp
from telegrad.ir import make_op, new_input
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.types import Type
from telegrad.ops import (
    control,
    cross_entropy,
    linalg,
    loss,
    norm,
    reduce,
    registry,
    systems,
)
from telegrad.ops import elementwise as e

from tests.ops.registry import FACTS

F = t.float32
HUGE = 2**40


def ty(*sizes: int, dtype: t.DType = F) -> Type:
    return Type(sizes, dtype)


def test_gradient_refuses_operands_that_do_not_pair() -> None:
    with pytest.raises(GraphError, match="do not hold 2 outputs"):
        result_types(control.Gradient(2), (ty(), ty()), ())


def test_reasons_tell_the_kinds_of_bad_shape_apart() -> None:
    reasons: list[str] = []
    for sizes in ((-1,), (2**62,), (1,) * 33):
        with pytest.raises(ShapeError) as caught:
            result_types(e.Iota(sizes, 0, t.int64), (), ())
        reasons.append(caught.value.reason)

    assert reasons == ["SHAPE_NEGATIVE", "SHAPE_OVERFLOW", "RANK_LIMIT"]


def test_zero_size_axes_beside_large_ones_are_legal() -> None:
    assert result_types(reduce.Sum((0,)), (Type((0, HUGE), F),), ()) == (Type((HUGE,), F),)


BAD_ATTRIBUTES: list[tuple[str, dict[str, Any], str]] = [
    ("sum", {}, "attribute axes is missing"),
    ("sum", {"axes": [0]}, "attribute axes must be"),
    ("sum", {"axes": (0.0,)}, "attribute axes must be"),
    ("sum", {"axes": (True,)}, "attribute axes must be"),
    ("sum", {"axes": (2**63,)}, "attribute axes must be"),
    ("sum", {"axes": (0,) * 5000}, "attribute axes must be"),
    ("sum", {"axes": (0,), "keepdims": 1}, "attribute keepdims must be"),
    ("sum", {"axes": (0,), "axis": 0}, "no attribute 'axis'"),
    ("cast", {"dtype": "float32"}, "attribute dtype must be"),
    ("random_bits", {"shape": (1,), "stream": 1.5}, "attribute stream must be"),
    ("constant", {"value": "1", "dtype": F}, "attribute value must be"),
    ("constant", {"value": 1 << 64, "dtype": F}, "attribute value must be"),
]


@pytest.mark.parametrize(("name", "attributes", "message"), BAD_ATTRIBUTES)
def test_attributes_are_checked(name: str, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        make_op(name, attributes)
    assert caught.value.reason.startswith("ATTRIBUTE_")


def test_an_unknown_op_is_named() -> None:
    with pytest.raises(UnknownOp, match="'system' is not known"):
        make_op("system", {})


@pytest.mark.parametrize("name", sorted(FACTS))
def test_every_op_refuses_foreign_attributes_and_wild_ones(name: str) -> None:
    good = FACTS[name].samples[0].op.attributes()
    for field in dataclasses.fields(registry()[name]):  # type: ignore[arg-type]
        for wild in (object(), float("nan"), [1], {}, b"x", "x" * 1000, (None,)):
            if isinstance(wild, float) and field.type == "Number":
                continue
            with pytest.raises(GraphError):
                make_op(name, {**good, field.name: wild})
    with pytest.raises(GraphError, match="no attribute '__class__'"):
        make_op(name, {**good, "__class__": 1})


@pytest.mark.parametrize("name", sorted(n for n, facts in FACTS.items() if facts.samples[0].operands))
def test_any_types_are_taken_or_refused_with_a_sentence(name: str) -> None:
    """No mixture of ranks and dtypes brings anything but types or a GraphError."""
    rng = np.random.default_rng(0)
    dtypes = (t.bool_, t.uint8, t.int64, t.float16, t.float64)
    for row in FACTS[name].samples:
        for _ in range(30):
            types = tuple(
                Type(tuple(int(n) for n in rng.integers(0, 4, rng.integers(0, 4))), dtypes[rng.integers(5)])
                for _ in range(rng.integers(0, 4))
            )
            try:
                found = result_types(row.op, types, ())
            except GraphError:
                continue
            assert found and all(size >= 0 for type in found for size in type.shape)
            row.op.cost(*types)


X, I = new_input(ty(2, 3)), new_input(ty(2, dtype=t.int64))


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda: ops.sum(X, axis=2), AxisError, "sum: axis 2 is out of range"),
        (lambda: ops.sum(X, axis=(0, -2)), AxisError, "name one axis twice"),
        (lambda: ops.sum(X, axis=1.0), AxisError, "sum: an axis is an integer, not 1.0"),
        (lambda: ops.softmax(X, axis="a"), AxisError, "softmax: an axis is an integer, not 'a'"),
        (lambda: ops.reshape(X, (4, -1)), ShapeError, "6 elements do not divide"),
        (lambda: ops.reshape(X, (-1, -1)), ShapeError, "only one size"),
        (lambda: ops.reshape(X, (2.5, 2)), ShapeError, "an integer or a sequence of them"),
        (lambda: ops.reshape(X, "6"), ShapeError, "an integer or a sequence of them"),
        (lambda: ops.broadcast_to(X, (2.0, 3)), ShapeError, "an integer or a sequence of them"),
        (lambda: ops.squeeze(X, 0), ShapeError, "axis 0 has size 2, not 1"),
        (lambda: ops.expand_dims(X, axis=4), AxisError, "axis 4"),
        (lambda: ops.permute_dims(X, (0,)), AxisError, "is no order of 2 axes"),
        (lambda: ops.permute_dims(X, (0, 0)), AxisError, "is no order of 2 axes"),
        (lambda: ops.moveaxis(X, (0, 1), (0,)), AxisError, "2 sources and 1 destinations"),
        (lambda: ops.concat([]), ShapeError, "at least one"),
        (lambda: ops.stack([]), ShapeError, "at least one"),
        (lambda: ops.stack([X, I]), ShapeError, "differ"),
        (lambda: ops.concat([X, I]), ShapeError, "sizes must be equal"),
        (lambda: ops.repeat(X, -1), ShapeError, "must not be negative"),
        (lambda: ops.repeat(X, [1, 2], axis=1), ShapeError, "axis 1 has 3 elements, and repeats 2"),
        (lambda: ops.repeat(X, I), TraceError, "depends on data"),
        (lambda: ops.repeat(X, X), DTypeError, "repeats must be integers"),
        (lambda: ops.nonzero(X), TraceError, "depends on data"),
        (lambda: ops.nonzero(new_input(ty())), ShapeError, "at least one axis"),
        (lambda: ops.nonzero(X, size=-1), GraphError, "must not be negative"),
        (lambda: ops.unique_values(X), TraceError, "depends on data"),
        (lambda: ops.unique_all(new_input(ty(0)), size=2), ShapeError, "has no 2 elements"),
        (lambda: ops.conj(new_input(ty(2, dtype=t.bool_))), DTypeError, "takes numbers"),
        (lambda: systems.pinv(X, rtol=new_input(ty(3))), ShapeError, "does not broadcast"),
        (lambda: ops.roll(X, (1, 2)), AxisError, "several shifts"),
        (lambda: ops.roll(X, (1, 2), axis=0), AxisError, "2 shifts for 1 axes"),
        (lambda: ops.cumulative_sum(X), AxisError, "axis is needed"),
        (lambda: ops.argmax(new_input(ty(0))), ShapeError, "no elements"),
        (lambda: ops.matmul(X, new_input(ty())), ShapeError, "takes vectors or matrices"),
        (lambda: ops.vecdot(X, X, axis=0), ShapeError, "must be negative"),
        (lambda: ops.vecdot(X, new_input(ty(2))), ShapeError, "must be equal"),
        (lambda: ops.tensordot(X, X, axes=3), ShapeError, "both must have 3 axes"),
        (lambda: ops.tensordot(X, X, axes=1), ShapeError, "different sizes"),
        (lambda: linalg.diagonal(I), ShapeError, "takes a matrix"),
        (lambda: ops.add(1, 2), DTypeError, "at least one operand must be a tensor"),
        (lambda: X + "a", DTypeError, "must be a tensor or a Python number, not str"),
        (lambda: X + np.ones(2), DTypeError, "not ndarray"),
        (lambda: new_input(ty(2, dtype=t.uint8)) + 300, DTypeError, "300 does not fit uint8"),
        (lambda: new_input(ty(2, dtype=t.uint64)) + I, DTypeError, "no common integer dtype"),
        (lambda: ops.take(X, X), DTypeError, "indices must be integers"),
        (lambda: ops.take_along_axis(X, I), ShapeError, "same number of axes"),
        (lambda: loss.mse_loss(X, X, reduction="avg"), GraphError, "reduction must be"),
        (lambda: loss.huber_loss(X, X, delta=0.0), GraphError, "delta must be positive"),
        (lambda: loss.smooth_l1_loss(X, X, beta=-1.0), GraphError, "beta must not be negative"),
        (lambda: norm.layer_norm(X, (2,)), ShapeError, "is not the end of"),
        (lambda: norm.rms_norm(X, ()), ShapeError, "is not the end of"),
        (lambda: cross_entropy.cross_entropy(X, new_input(ty(3, dtype=t.int64))), ShapeError, "it must have shape"),
        (lambda: cross_entropy.cross_entropy(X, X, reduction="avg"), GraphError, "reduction must be"),
        (lambda: cross_entropy.cross_entropy(X, I, label_smoothing=2.0), GraphError, "label_smoothing"),
        (lambda: cross_entropy.cross_entropy(X, I, new_input(ty(2))), ShapeError, "weight must have one number"),
        (lambda: cross_entropy.nll_loss(X, X), DTypeError, "must be class numbers"),
    ],
)  # fmt: skip
def test_functions_refuse_with_a_sentence(f: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        f()


def test_numpy_integers_are_integers() -> None:
    for value in (ops.sum(X, axis=np.int64(-1)), ops.reshape(X, (np.int32(3), -1)), ops.flip(X, axis=np.int8(0))):
        for field in dataclasses.fields(value.node.op):  # type: ignore[arg-type]
            numbers = getattr(value.node.op, field.name)
            assert all(type(n) is int for n in (numbers if isinstance(numbers, tuple) else ()))
