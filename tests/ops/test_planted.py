"""Wrong ops, wrong facts and wrong passes: each is found by the check that is there for it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from types import new_class
from typing import Any

import numpy as np
import pytest
from telegrad.ir import Graph, Type, Value
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ops import registry
from telegrad.ops.control import stop_gradient
from telegrad.ops.elementwise import Add, Exp, Multiply
from telegrad.ops.linalg import Matmul
from telegrad.ops.reduce import Sum
from telegrad_server.compiler.pipeline import Pass
from telegrad_server.compiler.rebuild import rewritten

from tests.ops.registry import FACTS, Facts, Sample
from tests.ops.registry import checks as c


def planted(name: str, op: Op) -> tuple[Facts, Sample]:
    """The facts of an op, with a wrong op in its place; and a sample that is neither empty nor a number."""
    samples = tuple(Sample(op, sample.operands) for sample in FACTS[name].samples)
    return replace(FACTS[name], samples=samples), samples[0]


# `abstract` keeps these out of the op table


@dataclass(frozen=True)
class WrongGradient(Exp, abstract=True):
    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * out * 1.0001,)


@dataclass(frozen=True)
class WrongSecondGradient(Exp, abstract=True):
    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * stop_gradient(out),)


@dataclass(frozen=True)
class NotLinear(Exp, abstract=True):
    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (g * out + g * g * 1e-4,)


@dataclass(frozen=True)
class RightForOnes(Multiply, abstract=True):
    """Right if all cotangents are equal, as all of lamp's were."""

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        from telegrad import ops

        return g * y, ops.mean(g) * x


@dataclass(frozen=True)
class NoGradient(Exp, abstract=True):
    def vjp(self, g: Value, out: Value, x: Value) -> tuple[None]:
        return (None,)


@dataclass(frozen=True)
class WrongShape(Sum, abstract=True):
    def infer(self, x: Type) -> Type:
        return Type((1, *super().infer(x).shape), x.dtype)


@dataclass(frozen=True)
class WrongDtype(Exp, abstract=True):
    def infer(self, *types: Type) -> Type:
        return Type(types[0].shape, t.float32)


@dataclass(frozen=True)
class WrongValue(Exp, abstract=True):
    def eval(self, xp: Any, *arrays: Any) -> Any:
        return super().eval(xp, *arrays) * (1 + 1e-13)


@dataclass(frozen=True)
class NarrowSum(Sum, abstract=True):
    """Adds up 16-bit floats in 16 bits."""

    def eval(self, xp: Any, x: Any) -> Any:
        if x.dtype != np.float16:
            return super().eval(xp, x)
        for _ in self.axes:
            x = np.add.accumulate(x, axis=self.axes[0], dtype=x.dtype)[-1]
        return x


@dataclass(frozen=True)
class NarrowMatmul(Matmul, abstract=True):
    """Adds up products in 16 bits."""

    def eval(self, xp: Any, x: Any, y: Any) -> Any:
        if x.dtype != np.float16:
            return super().eval(xp, x, y)
        products = x[..., :, None, :] * np.swapaxes(y, -1, -2)[..., None, :, :]
        return np.add.accumulate(products, axis=-1, dtype=x.dtype)[..., -1]


@dataclass(frozen=True)
class BlindToStrides(Exp, abstract=True):
    """Reads memory in its own order."""

    def eval(self, xp: Any, *arrays: Any) -> Any:
        (x,) = arrays
        return super().eval(xp, np.ravel(x, order="K").reshape(x.shape))


_CALLS = itertools.count()


@dataclass(frozen=True)
class Unsteady(Exp, abstract=True):
    """Adds up in an order that changes from call to call."""

    def eval(self, xp: Any, *arrays: Any) -> Any:
        return super().eval(xp, *arrays) * (1 + 2.0**-52 * (next(_CALLS) % 2))


@dataclass(frozen=True)
class TakesAll(Exp, abstract=True):
    kinds = ("bool", "uint", "int", "float")


@dataclass(frozen=True)
class CostsNothing(Matmul, abstract=True):
    def cost(self, *types: Type) -> Cost:
        return Cost(0, super().cost(*types).nbytes)


@dataclass(frozen=True)
class MovesNothing(Matmul, abstract=True):
    def cost(self, *types: Type) -> Cost:
        return Cost(super().cost(*types).flops, 0)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (WrongGradient(), "order 1: the rule gives"),
        (WrongSecondGradient(), "order 2: the rule gives"),
        (NotLinear(), "order 1|not linear"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Op) else "",
)
def test_a_wrong_gradient_is_found(op: Op, message: str) -> None:
    with pytest.raises(c.Wrong, match=message):
        c.check_slopes(*planted("exp", op))
    c.check_slopes(*planted("exp", Exp()))


def test_a_gradient_that_is_right_for_equal_cotangents_only_is_found() -> None:
    with pytest.raises(c.Wrong, match="order 1"):
        c.check_slopes(*planted("multiply", RightForOnes()))


def test_a_gradient_that_is_missing_is_found() -> None:
    with pytest.raises(c.Wrong, match=r"gradients for \[False\] instead of \[True\]"):
        c.check_undefined(*planted("exp", NoGradient()))


@pytest.mark.parametrize("op", [WrongShape((1,)), WrongDtype()], ids=["shape", "dtype"])
def test_a_wrong_inference_is_found(op: Op) -> None:
    with pytest.raises(c.Wrong, match="inference and execution do not agree"):
        c.check_forward(*planted(op.name, op))


def test_a_wrong_value_is_found() -> None:
    with pytest.raises(c.Wrong, match="the result in float64"):
        c.check_forward(*planted("exp", WrongValue()))


@pytest.mark.parametrize(("op", "name"), [(NarrowSum((0,)), "sum"), (NarrowMatmul(), "matmul")])
def test_sums_in_16_bits_are_found(op: Op, name: str) -> None:
    long = next(s for s in FACTS[name].samples if max(s.arrays[0].shape, default=0) >= 3000)
    facts = FACTS[name]

    with pytest.raises(c.Wrong, match="the result in float16"):
        c.check_forward(facts, replace(long, op=op), t.float16)
    c.check_forward(facts, long, t.float16)


def test_an_op_that_is_blind_to_strides_is_found() -> None:
    facts, _ = planted("exp", BlindToStrides())
    matrix = next(s for s in facts.samples if s.arrays[0].ndim == 2 and s.arrays[0].size)

    with pytest.raises(c.Wrong, match="the result"):
        c.check_layouts(facts, matrix)


def test_an_op_that_does_not_repeat_itself_is_found() -> None:
    with pytest.raises(c.Wrong, match="has other bits than the first"):
        c.check_repeats(*planted("exp", Unsteady()))
    facts, sample = planted("exp", Unsteady())
    c.check_repeats(replace(facts, is_deterministic=False), sample)


def test_an_op_that_takes_other_dtypes_than_it_says_is_found() -> None:
    with pytest.raises(c.Wrong, match="bool is taken"):
        c.check_dtypes(*planted("exp", TakesAll()))
    facts, sample = planted("exp", Exp())
    with pytest.raises(c.Wrong, match="int64 is refused"):
        c.check_dtypes(replace(facts, dtypes=(*facts.dtypes, t.int64)), sample)


def test_a_wrong_cost_is_found() -> None:
    with pytest.raises(c.Wrong, match="costs 0 operations, 24 by the formula"):
        c.check_cost(*planted("matmul", CostsNothing()))
    with pytest.raises(c.Wrong, match="moves 0 bytes"):
        c.check_cost(*planted("matmul", MovesNothing()))


# ---- every op, spoilt


def spoilt(sample: Sample, **rules: Any) -> Sample:
    """The sample with an op of the same attributes and some other rules."""
    cls = type(sample.op)
    worse: Any = new_class(cls.__name__, (cls,), {"abstract": True}, lambda space: space.update(rules))
    given = {field.name: getattr(sample.op, field.name) for field in fields(sample.op)}  # type: ignore[arg-type]
    return Sample(worse(**given), sample.operands)


def is_found(check: Any, facts: Facts, samples: Any) -> bool:
    """Whether the check finds one of the samples wrong."""
    for sample in samples:
        try:
            check(facts, sample)
        except c.Wrong:
            return True
    return False


@pytest.mark.parametrize("name", [n for n, f in FACTS.items() if any(c.has_slopes(f, s) for s in f.samples)])
def test_a_gradient_that_is_off_by_a_thousandth_is_found_for_every_operand_of_every_op(name: str) -> None:
    facts = FACTS[name]
    smooth = [s for s in facts.samples if c.has_slopes(facts, s)]
    operands = max(len(s.arrays) for s in smooth)

    for n in range(operands):
        if not any(n < len(s.arrays) and facts.has_gradient(s.op, n) and s.arrays[n].dtype.kind == "f" for s in smooth):
            continue

        def vjp(self: Op, g: Any, out: Any, *inputs: Value, n: int = n) -> Any:
            found = list(super(type(self), self).vjp(g, out, *inputs))  # type: ignore[misc]
            if n < len(found) and found[n] is not None:
                found[n] = found[n] * 1.001
            return tuple(found)

        assert is_found(c.check_slopes, facts, [spoilt(s, vjp=vjp) for s in smooth]), f"operand {n}"


@pytest.mark.parametrize("name", FACTS)
def test_a_value_that_is_off_by_a_billionth_is_found_for_every_result_of_every_op(name: str) -> None:
    facts = FACTS[name]

    for n in range(len(c.apply(facts.samples[0].op, c.inputs_for(facts.samples[0].arrays)))):

        def eval(self: Op, xp: Any, *arrays: Any, n: int = n) -> Any:
            found = super(type(self), self).eval(xp, *arrays)  # type: ignore[misc]
            results = list(found) if isinstance(found, tuple) else [found]
            if n < len(results):
                y = np.asarray(results[n])
                results[n] = ~y if y.dtype == bool else y * (1 + 1e-9) if y.dtype.kind == "f" else y + y.dtype.type(1)
            return tuple(results) if isinstance(found, tuple) else results[0]

        assert is_found(c.check_forward, facts, [spoilt(s, eval=eval) for s in facts.samples]), f"result {n}"


# ---- facts that lack a part


EXP = FACTS["exp"]


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (replace(EXP, samples=EXP.samples[:4]), ["4 samples of 5"]),
        (replace(EXP, refusals=EXP.refusals[:2]), ["2 refusals of 3"]),
        (replace(EXP, reference=None), ["a reference, or laws"]),
        (replace(EXP, laws=lambda *given: []), ["a reference, or laws"]),
        (replace(EXP, dtypes=()), ["dtypes"]),
        (replace(EXP, spacings={t.float64: 1.0}), [f"a tolerance for {d}" for d in ("float32", "float16", "bfloat16")]),
        (replace(EXP, without={}), [f"a sample that is {k}" for k in EXP.without]),
        (replace(EXP, without={**EXP.without, "empty": "none"}), ["no reason against empty"]),
        (replace(EXP, samples=(*EXP.samples, *FACTS["log"].samples)), ["samples of one op only"]),
    ],
)
def test_facts_without_a_part_are_found(facts: Facts, missing: list[str]) -> None:
    assert sorted(c.missing_parts(facts)) == sorted(missing)


# ---- passes


def _doubled(graph: Graph) -> Graph:
    """x + x in place of x."""

    def rule(node: Any, inputs: tuple[Value, ...]) -> Any:
        return (inputs[0] + inputs[0],) if isinstance(node.op, Exp) else None

    return rewritten(graph, rule)


def _tenth(graph: Graph) -> Graph:
    """Every sum of two by way of tenths: the same numbers, rounded more often."""

    def rule(node: Any, inputs: tuple[Value, ...]) -> Any:
        if not isinstance(node.op, Add) or not inputs[0].dtype.is_float:
            return None
        x, y = inputs
        tenth = x.literal(0.1, x.dtype)
        return (Multiply()(Add()(Multiply()(x, tenth), Multiply()(y, tenth)), x.literal(10.0, x.dtype)),)

    return rewritten(graph, rule)


def _halves(graph: Graph) -> Graph:
    """Every sum of two by way of halves, which is exact."""

    def rule(node: Any, inputs: tuple[Value, ...]) -> Any:
        if not isinstance(node.op, Add) or not inputs[0].dtype.is_float:
            return None
        x, y = inputs
        half = x.literal(0.5, x.dtype)
        return (Multiply()(Add()(Multiply()(x, half), Multiply()(y, half)), x.literal(2.0, x.dtype)),)

    return rewritten(graph, rule)


def _bad(graph: Graph) -> Graph:
    """Every sum of two with an error of several roundings."""

    def rule(node: Any, inputs: tuple[Value, ...]) -> Any:
        x = inputs[0] if inputs else None
        if x is None or not isinstance(node.op, Add) or not x.dtype.is_float:
            return None
        return (Multiply()(Add()(*inputs), x.literal(1 + 1e-6, x.dtype)),)

    return rewritten(graph, rule)


def test_an_exact_pass_that_changes_bits_is_found() -> None:
    with pytest.raises(c.Wrong, match="the pass doubled changes bits"):
        c.check_pass(Pass("doubled", "exact", _doubled), EXP, EXP.samples[0])
    add = FACTS["add"]
    with pytest.raises(c.Wrong, match="the pass tenths changes bits"):
        c.check_pass(Pass("tenths", "exact", _tenth), add, add.samples[0])


def test_a_rounding_pass_may_change_last_bits_and_no_more() -> None:
    add = FACTS["add"]
    for sample in add.samples:
        c.check_pass(Pass("tenths", "rounding", _tenth), add, sample)
        c.check_pass(Pass("halves", "rounding", _halves), add, sample)
    with pytest.raises(c.Wrong, match="the pass bad is worse"):
        c.check_pass(Pass("bad", "rounding", _bad), add, add.samples[0])


def test_nothing_is_left_in_the_op_table() -> None:
    ops = registry()

    assert (ops["exp"], ops["sum"], ops["matmul"]) == (Exp, Sum, Matmul)
