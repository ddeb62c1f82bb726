"""What is generated from the table of ops: types, values, gradients to second order, attributes, costs."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from telegrad.autodiff import gradient
from telegrad.errors import DTypeError, GraphError
from telegrad.ir import Type, Value, make_op, new_input
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.value import apply
from telegrad.ops import registry
from telegrad.ops.control import stop_gradient
from telegrad.ops.elementwise import Elementwise, Exp
from telegrad.ops.systems import MatrixOp

from tests.ops.checks import Array, WrongGradient, call, check_gradients, generator, inputs_for, type_of
from tests.ops.table import CASES, ELSEWHERE, Case

ROWS = [pytest.param(row, id=f"{name}-{i}") for name, rows in CASES.items() for i, row in enumerate(rows)]


def arrays_of(row: Case) -> list[Array]:
    rng = generator(repr(row.op))
    return [make(rng) for make in row.operands]


def is_smooth(row: Case, arrays: list[Array]) -> bool:
    return row.is_smooth and all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")


def takes(row: Case, dtype: t.DType) -> bool:
    """Whether the op is made for operands of this float dtype; decompositions are not for those of 16 bits."""
    return dtype.itemsize > 2 or not isinstance(row.op, MatrixOp)


def results(row: Case, *operands: Value) -> tuple[Value, ...]:
    return apply(row.op, operands)


def test_every_op_has_a_row() -> None:
    missing = sorted(set(registry()) - set(CASES) - set(ELSEWHERE))
    unknown = sorted((set(CASES) | set(ELSEWHERE)) - set(registry()))

    assert (missing, unknown) == ([], [])
    assert all(row.op.name == name for name, rows in CASES.items() for row in rows)


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_op_says_what_it_is(name: str) -> None:
    cls = registry()[name]
    text = cls.__doc__

    assert text and not text.startswith(cls.__name__ + "("), "dataclass writes a docstring if there is none"
    assert text.rstrip().endswith((".", ")")), text


@pytest.mark.parametrize("row", ROWS)
def test_eval_gives_what_numpy_gives(row: Case) -> None:
    arrays = arrays_of(row)
    found = call(lambda *xs: results(row, *xs), *arrays)
    if row.expected is None:
        return

    wanted = row.expected(*arrays)

    for array, reference in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
        assert array.shape == np.shape(reference)
        np.testing.assert_allclose(array, reference, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["float32", "float16", "bfloat16"])
def test_infer_agrees_with_eval_in_every_float_dtype(row: Case, dtype: type[np.generic]) -> None:
    arrays = arrays_of(row)
    if not any(a.dtype.kind == "f" for a in arrays):
        return
    exact = call(lambda *xs: results(row, *xs), *arrays)

    narrow = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    if not takes(row, type_of(np.empty(0, dtype)).dtype):
        with pytest.raises(DTypeError, match="takes float32 or float64; use astype"):
            results(row, *inputs_for(narrow))
        return
    found = call(lambda *xs: results(row, *xs), *narrow)  # asserts on the way that types are as inferred

    if isinstance(row.op, Elementwise) and row.op.kinds == ("float",):
        assert all(type_of(a).dtype is type_of(narrow[0]).dtype or a.dtype == bool for a in found)
    continuous = row.op.name not in {
        "floor",
        "ceil",
        "trunc",
        "round",
        "floor_divide",
        "remainder",
        "nextafter",
        "cast",
    }
    for narrowed, array in zip(found, exact, strict=True):
        if continuous and array.dtype.kind == "f":
            rounding = 2.0 ** {"float32": -20, "float16": -7, "bfloat16": -4}[np.dtype(dtype).name]
            np.testing.assert_allclose(narrowed.astype(np.float64), array, rtol=rounding, atol=2 * rounding)


@pytest.mark.parametrize("row", ROWS)
def test_gradients_to_second_order(row: Case) -> None:
    arrays = arrays_of(row)
    if not is_smooth(row, arrays):
        return

    check_gradients(lambda *xs: results(row, *xs), arrays, name=repr(row.op), tolerance=row.tolerance)


@pytest.mark.parametrize("row", ROWS)
def test_a_value_may_be_several_operands(row: Case) -> None:
    arrays = arrays_of(row)
    floats = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    if len(floats) < 2 or len({type_of(arrays[i]) for i in floats}) > 1:
        return

    def reused(x: Value, *others: Value) -> tuple[Value, ...]:
        rest = iter(others)
        return results(row, *[x if i in floats else next(rest) for i in range(len(arrays))])

    x = np.abs(arrays[floats[0]]) + 0.5  # in the domain of every operand, whichever it is
    operands = [x, *[a for i, a in enumerate(arrays) if i not in floats]]
    smooth = row.op.name not in {"minimum", "maximum", "remainder", "floor_divide", "atan2"}
    if smooth:
        check_gradients(reused, operands, name=repr(row.op), tolerance=row.tolerance)


@pytest.mark.parametrize("row", ROWS)
def test_attributes_survive_the_wire(row: Case) -> None:
    again = make_op(row.op.name, row.op.attributes())

    assert again == row.op and repr(again) == repr(row.op) and hash(again) == hash(row.op)


@pytest.mark.parametrize("row", ROWS)
def test_cost_follows_from_the_types(row: Case) -> None:
    types = tuple(type_of(a) for a in arrays_of(row))

    cost = row.op.cost(*types)

    assert isinstance(cost.flops, int) and isinstance(cost.nbytes, int) and cost.flops >= 0 and cost.nbytes >= 0
    assert row.op.is_view or cost.nbytes >= sum(
        y.nbytes for y in result_types(row.op, types, ()) if not types or y.size
    )


@pytest.mark.parametrize("row", [r for r in ROWS if isinstance(r.values[0].op, Elementwise)])
@pytest.mark.parametrize("shape", [(0,), (2, 0), ()], ids=str)
def test_elementwise_ops_take_empty_and_0d_operands(row: Case, shape: tuple[int, ...]) -> None:
    arrays = [np.resize(a, shape) if a.size else np.zeros(shape, a.dtype) for a in arrays_of(row)]

    (found,) = call(lambda *xs: results(row, *xs), *arrays)

    assert found.shape == shape
    if is_smooth(row, arrays):
        check_gradients(lambda *xs: results(row, *xs), arrays, name=repr(row.op), tolerance=row.tolerance)


@pytest.mark.parametrize("row", ROWS)
def test_the_wrong_number_of_operands_is_refused(row: Case) -> None:
    if row.op.name in {"concat", "barrier", "attention"}:  # of several numbers of operands
        return
    types = tuple(type_of(a) for a in arrays_of(row))

    with pytest.raises(GraphError):
        result_types(row.op, (*types, Type((), t.float64)), ())
    if types:
        with pytest.raises(GraphError):
            result_types(row.op, types[:-1], ())


def test_the_checker_finds_a_planted_wrong_gradient() -> None:
    # not registered: `abstract` keeps it out of the op table
    @dataclasses.dataclass(frozen=True)
    class Wrong(Exp, abstract=True):
        def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
            return (g * out * 1.0001,)

    @dataclasses.dataclass(frozen=True)
    class WrongTwice(Exp, abstract=True):
        def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
            return (g * stop_gradient(out),)

    @dataclasses.dataclass(frozen=True)
    class NotLinear(Exp, abstract=True):
        def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
            return (g * out + g * g * 1e-4,)

    x = np.array([0.3, -1.0, 0.7])
    for op in (Wrong(), WrongTwice(), NotLinear()):
        with pytest.raises(WrongGradient):
            check_gradients(lambda v, op=op: apply(op, [v]), [x], name="planted")
    check_gradients(lambda v: apply(Exp(), [v]), [x], name="planted")


@pytest.mark.parametrize("name", sorted(n for n, cls in registry().items() if hasattr(cls, "in_primitives")))
def test_a_joint_kernel_agrees_with_its_reference_form(name: str) -> None:
    for row in CASES[name]:
        arrays = arrays_of(row)

        joint = call(lambda *xs, row=row: results(row, *xs), *arrays)
        plain = call(lambda *xs, row=row: row.op.in_primitives(*xs), *arrays)  # type: ignore[attr-defined]

        for a, b in zip(joint, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("row", ROWS)
def test_gradients_have_the_dtype_of_their_operands_to_second_order(row: Case) -> None:
    for dtype in (t.float16, t.bfloat16, t.float32):
        if not takes(row, dtype):
            continue
        types = [type_of(a) for a in arrays_of(row)]
        xs = [new_input(Type(x.shape, dtype) if x.dtype.is_float else x) for x in types]
        wrt = [x for x in xs if x.dtype.is_float]
        ys = [y for y in results(row, *xs) if y.dtype.is_float]

        for _ in range(2):
            found = gradient(ys, [new_input(y.type) for y in ys], wrt)

            assert [g.type for g in found] == [x.type for x in wrt]
            ys = list(found)
