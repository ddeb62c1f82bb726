"""Bad graphs are refused by ``infer`` with one sentence, before anything runs (reliability A01 to A10)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from telegrad import ops
from telegrad.errors import AxisError, DTypeError, GraphError, ShapeError, TraceError, UnknownOp
from telegrad.ir import Op, make_op, new_input
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.types import Type
from telegrad.ops import (
    control,
    cross_entropy,
    decompositions,
    determinants,
    index,
    linalg,
    loss,
    norm,
    probability,
    reduce,
    registry,
    shape,
    slices,
    sparse,
    systems,
)
from telegrad.ops import elementwise as e

from tests.ops.table import CASES

F = t.float32
HUGE = 2**40


def ty(*sizes: int, dtype: t.DType = F) -> Type:
    return Type(sizes, dtype)


LINE = ty(2, dtype=t.int64)

REFUSED: list[tuple[Op, tuple[Type, ...], type[Exception], str]] = [
    # A01 a negative size
    (shape.Reshape((-2, 3)), (ty(6),), ShapeError, "reshape: axis 0 has negative size -2"),
    (shape.BroadcastTo((2, -1)), (ty(1),), ShapeError, "axis 1 has negative size -1"),
    (e.Iota((-1,), 0, t.int64), (), ShapeError, "iota: axis 0 has negative size -1"),
    (index.ScatterAdd(-1), (ty(2), ty(2, dtype=t.int64)), ShapeError, "negative size -1"),
    (index.AddAlong(0, -1), (ty(2), ty(2, dtype=t.int64)), ShapeError, "negative size -1"),
    (index.CheckedIndex(-1), (ty(2, dtype=t.int64),), ShapeError, "no size -1"),
    (slices.Unslice((0,), (0,), (1,), (-3,)), (ty(0),), ShapeError, "negative size -3"),
    (sparse.SparseMatmul(-1), (ty(2), LINE, LINE, ty(3, 1)), ShapeError, "negative size -1"),
    (sparse.SparseMatmul(HUGE), (ty(2), LINE, LINE, ty(3, HUGE)), ShapeError, "more elements than can be addressed"),
    (sparse.SparseMatmul(3), (ty(3), LINE, LINE, ty(3, 1)), ShapeError, "a value for each place"),
    (sparse.SparseMatmul(3), (ty(2), LINE, LINE, ty(3)), ShapeError, "a value for each place, and a matrix"),
    (sparse.SparseMatmul(3), (ty(2), LINE, ty(2), ty(3, 1)), DTypeError, "rows and columns must be integers"),
    (sparse.SparseMatmul(3), (ty(2), LINE, ty(3, dtype=t.int64), ty(3, 1)), ShapeError, "vectors of one length"),
    (sparse.SparseMatmul(3), (ty(2), LINE, LINE, ty(3, 1, dtype=t.float64)), DTypeError, "numbers of one dtype"),
    (sparse.SampledMatmul(), (ty(3, 2), ty(3, 1), LINE, LINE), ShapeError, "as many columns"),
    # A02, A03 products beyond what can be addressed
    (shape.BroadcastTo((2**4, 2**60 + 2)), (ty(1),), ShapeError, "more elements than can be addressed"),
    (shape.BroadcastTo((4, 2**60 + 2)), (ty(1),), ShapeError, "more elements than can be addressed"),
    (e.Iota((2**62,), 0, t.int64), (), ShapeError, "more elements than can be addressed"),
    (e.Add(), (ty(HUGE, 1), ty(1, HUGE)), ShapeError, "more elements than can be addressed"),
    (e.Where(), (ty(HUGE, 1, dtype=t.bool_), ty(1, HUGE), ty()), ShapeError, "more elements than can be addressed"),
    (linalg.Matmul(), (ty(HUGE, 1), ty(1, HUGE)), ShapeError, "more elements than can be addressed"),
    (decompositions.Svd(True), (ty(1, HUGE),), ShapeError, "more elements than can be addressed"),
    (decompositions.Qr(True), (ty(HUGE, 1),), ShapeError, "more elements than can be addressed"),
    (systems.Solve(), (ty(HUGE, 1, 1, 1), ty(HUGE, 1, 1)), ShapeError, "more elements than can be addressed"),
    (index.Gather(), (ty(2, HUGE), ty(HUGE, dtype=t.int64)), ShapeError, "more elements than can be addressed"),
    (shape.Pad((2**61,), (0,)), (ty(1),), ShapeError, "more elements than can be addressed"),
    (slices.Unslice((0,), (1,), (1,), (2**62,)), (ty(1),), ShapeError, "more elements than can be addressed"),
    # A05 too many axes
    (shape.Reshape((1,) * 33), (ty(1),), ShapeError, "33 axes; at most 32"),
    (index.Gather(), (Type((1,) * 20, F), Type((1,) * 20, t.int64)), ShapeError, "39 axes; at most 32"),
    # A06 zero-size axes beside huge ones
    (shape.BroadcastTo((0, 2**62)), (ty(1),), ShapeError, "more elements than can be addressed"),
    # A10 axes: out of range, repeated, unsorted, counted from the end
    (reduce.Sum((2,)), (ty(2, 3),), AxisError, "sum: axis 2 is out of range for 2 axes"),
    (reduce.Sum((0, 0)), (ty(2, 3),), AxisError, "name one axis twice"),
    (reduce.Sum((1, 0)), (ty(2, 3),), AxisError, "must be sorted and counted from the front"),
    (reduce.Max((-1,)), (ty(2, 3),), AxisError, "must be sorted and counted from the front"),
    (reduce.Argmax(-1), (ty(2, 3),), AxisError, "argmax: axis -1 is out of range for 2 axes"),
    (reduce.CumulativeSum(2), (ty(2, 3),), AxisError, "cumulative_sum: axis 2"),
    (shape.Flip((1, 0)), (ty(2, 3),), AxisError, "must be sorted"),
    (shape.Concat(-1), (ty(2), ty(3)), AxisError, "concat: axis -1"),
    (shape.Concat(0), (ty(),), AxisError, "axis 0 is out of range for 0 axes"),
    (shape.Permute((0, 0)), (ty(2, 3),), AxisError, "is no order of 2 axes"),
    (shape.Permute((0, -1)), (ty(2, 3),), AxisError, "is no order of 2 axes"),
    (index.TakeAlong(-1), (ty(2), ty(2, dtype=t.int64)), AxisError, "axis -1"),
    (index.AddAlong(1, 3), (ty(2), ty(2, dtype=t.int64)), AxisError, "axis 1"),
    (index.Argsort(1), (ty(2),), AxisError, "argsort: axis 1"),
    (probability.Softmax(-1), (ty(2),), AxisError, "softmax: axis -1"),
    (cross_entropy.SoftmaxCrossEntropy(2), (ty(2, 3), ty(2, dtype=t.int64)), AxisError, "axis 2"),
    (e.Iota((2,), 1, t.int64), (), AxisError, "iota: axis 1"),
    # shapes
    (e.Add(), (ty(2, 3), ty(4)), ShapeError, r"add\(\[2, 3\], \[4\]\): axis -1 has sizes \(3, 4\); they must be"),
    (shape.Reshape((4,)), (ty(2, 3),), ShapeError, "6 elements do not make 4"),
    (shape.BroadcastTo((3,)), (ty(2, 3),), ShapeError, "does not broadcast"),
    (shape.Concat(0), (ty(2, 3), ty(2, 4)), ShapeError, "sizes must be equal except along axis 0"),
    (shape.Concat(0), (), ShapeError, "at least one value"),
    (shape.Pad((1,), (1,)), (ty(2, 3),), ShapeError, "must be 2 numbers"),
    (shape.Pad((-1,), (1,)), (ty(2),), ShapeError, "not below 0"),
    (shape.Tril(), (ty(2),), ShapeError, "takes a matrix"),
    (linalg.Matmul(), (ty(2, 3), ty(2, 3)), ShapeError, "must be equal"),
    (linalg.Matmul(), (ty(3), ty(3)), ShapeError, "must be equal"),
    (linalg.Matmul(), (ty(2, 2, 3), ty(4, 3, 2)), ShapeError, r"axis -1 has sizes \(2, 4\)"),
    (systems.Solve(), (ty(2, 3), ty(2, 1)), ShapeError, "takes square matrices, not 2 by 3"),
    (systems.TriangularSolve(True), (ty(2, 2), ty(3, 1)), ShapeError, "2 rows and a right-hand side with 3"),
    (determinants.Det(), (ty(3),), ShapeError, "takes a matrix or a stack of them"),
    (reduce.Max((0,)), (ty(0, 3),), ShapeError, "no elements along axes"),
    (reduce.Argmin(0), (ty(0, 3),), ShapeError, "no elements along axis 0"),
    (slices.Slice((0,), (4,), (1,)), (ty(3),), ShapeError, "axis 0 of size 3 has no 0:4:1"),
    (slices.Slice((0,), (3,), (0,)), (ty(3),), ShapeError, "the step of axis 0 is 0"),
    (slices.Slice((-1,), (2,), (1,)), (ty(3),), ShapeError, "has no -1:2:1"),
    (slices.Slice((-(2**63),), (2**63 - 1,), (1,)), (ty(3),), ShapeError, "axis 0 of size 3 has no"),
    (slices.Slice((0,), (1,), (1,)), (ty(3, 3),), ShapeError, "must be given for each of 2 axes"),
    (slices.Unslice((0,), (2,), (1,), (3,)), (ty(3),), ShapeError, r"select \[2\] of \[3\]"),
    (slices.SliceSet((0,), (2,), (1,)), (ty(3), ty(3)), ShapeError, "axis -1 has sizes"),
    (slices.SliceSet((0,), (1,), (1,)), (ty(3), ty(3)), ShapeError, "does not broadcast"),
    (index.Gather(), (ty(), ty(1, dtype=t.int64)), ShapeError, "no rows"),
    (index.ScatterAdd(3), (ty(2, 2), ty(3, dtype=t.int64)), ShapeError, "must be those of the index"),
    (index.ScatterSet(), (ty(3), ty(2, dtype=t.int64), ty(3)), ShapeError, "do not fit the rows"),
    (index.TakeAlong(0), (ty(2, 3), ty(2, 2, dtype=t.int64)), ShapeError, "except along axis 0"),
    (index.AddAlong(0, 3), (ty(2), ty(3, dtype=t.int64)), ShapeError, "shapes must be equal"),
    (cross_entropy.SoftmaxCrossEntropy(1), (ty(2, 3), ty(3, dtype=t.int64)), ShapeError, "without axis 1"),
    (cross_entropy.SoftmaxCrossEntropy(1), (ty(2, 0), ty(2, dtype=t.int64)), ShapeError, "no classes"),
    # dtypes
    (e.Add(), (ty(2), ty(2, dtype=t.float64)), DTypeError, "dtypes must be equal; use astype"),
    (e.Add(), (ty(2, dtype=t.bool_), ty(2, dtype=t.bool_)), DTypeError, "takes uint or int or float"),
    (e.Exp(), (ty(2, dtype=t.int64),), DTypeError, "takes float dtypes"),
    (e.LogicalAnd(), (ty(2), ty(2)), DTypeError, "takes bool dtypes"),
    (e.BitwiseAnd(), (ty(2), ty(2)), DTypeError, "takes bool or uint or int"),
    (e.Where(), (ty(2), ty(2), ty(2)), DTypeError, "takes a bool condition"),
    (e.Where(), (ty(2, dtype=t.bool_), ty(2), ty(2, dtype=t.float64)), DTypeError, "two values of one dtype"),
    (e.IntegerPower(-1), (ty(2, dtype=t.int64),), DTypeError, "needs a floating-point base"),
    (e.IntegerPower(5000), (ty(2),), DTypeError, "beyond 1024"),
    (e.Iota((2,), 0, t.bool_), (), DTypeError, "not booleans"),
    (e.Constant(300, t.uint8), (), DTypeError, "300 does not fit uint8"),
    (e.Constant(-1, t.uint64), (), DTypeError, "-1 does not fit uint64"),
    (e.Constant(1.5, t.int64), (), DTypeError, "1.5 does not fit int64"),
    (shape.Pad((1,), (1,), 1.5), (ty(2, dtype=t.int64),), DTypeError, "1.5 does not fit int64"),
    (shape.Concat(0), (ty(2), ty(2, dtype=t.float64)), DTypeError, "dtypes must be equal"),
    (reduce.Sum((0,)), (ty(2, dtype=t.bool_),), DTypeError, "takes numbers"),
    (reduce.Prod((0,)), (ty(2, dtype=t.bool_),), DTypeError, "takes numbers"),
    (reduce.CumulativeProd(0), (ty(2, dtype=t.bool_),), DTypeError, "takes numbers"),
    (reduce.AllTrue((0,)), (ty(2),), DTypeError, "takes booleans"),
    (linalg.Matmul(), (ty(2, 2), ty(2, 2, dtype=t.float64)), DTypeError, "one numeric dtype"),
    (index.Gather(), (ty(2), ty(2)), DTypeError, r"indices must be integers, not float32\[2\]"),
    (index.ScatterSet(), (ty(2), ty(2, dtype=t.int64), ty(2, dtype=t.int64)), DTypeError, "dtypes must be equal"),
    (slices.SliceSet((0,), (1,), (1,)), (ty(3), ty(1, dtype=t.int64)), DTypeError, "dtypes must be equal"),
    (probability.LogSoftmax(0), (ty(2, dtype=t.int64),), DTypeError, "takes a floating-point dtype"),
    (cross_entropy.SoftmaxCrossEntropy(1), (ty(2, 3), ty(2)), DTypeError, "integer labels"),
    (systems.Solve(), (ty(2, 2), ty(2, 2, dtype=t.float64)), DTypeError, "dtypes must be equal; use astype"),
    (systems.Inv(), (ty(2, 2, dtype=t.float16),), DTypeError, r"inv\(float16\[2,2\]\): takes float32 or"),
    (decompositions.Eigh(), (ty(2, 2, dtype=t.int64),), DTypeError, "takes float32 or float64"),
    # arity
    (e.Add(), (ty(2), ty(2), ty(2)), GraphError, "add takes 2 operands, not 3"),
    (e.Exp(), (), GraphError, "exp takes 1 operands, not 0"),
    (reduce.Sum((0,)), (ty(2), ty(2)), GraphError, "sum does not take 2 operands"),
    (control.Gradient(2), (ty(), ty()), GraphError, "do not hold 2 outputs"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "types", "error", "message"), REFUSED, ids=lambda v: repr(v)[:60] if isinstance(v, Op) else ""
)
def test_infer_refuses(op: Op, types: tuple[Type, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        result_types(op, types, ())

    text = str(caught.value)
    assert isinstance(caught.value, GraphError) and "\n" not in text and len(text) < 300
    assert caught.value.reason not in ("INTERNAL",)


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


@pytest.mark.parametrize("name", sorted(set(CASES)))
def test_every_op_refuses_foreign_attributes_and_wild_ones(name: str) -> None:
    good = CASES[name][0].op.attributes()
    for field in dataclasses.fields(registry()[name]):  # type: ignore[arg-type]
        for wild in (object(), float("nan"), [1], {}, b"x", "x" * 1000, (None,)):
            if isinstance(wild, float) and field.type == "Number":
                continue
            with pytest.raises(GraphError):
                make_op(name, {**good, field.name: wild})
    with pytest.raises(GraphError, match="no attribute '__class__'"):
        make_op(name, {**good, "__class__": 1})


@pytest.mark.parametrize("name", sorted(n for n, rows in CASES.items() if rows[0].operands))
def test_any_types_are_taken_or_refused_with_a_sentence(name: str) -> None:
    """No mixture of ranks and dtypes brings anything but types or a GraphError."""
    rng = np.random.default_rng(0)
    dtypes = (t.bool_, t.uint8, t.int64, t.float16, t.float64)
    for row in CASES[name]:
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
