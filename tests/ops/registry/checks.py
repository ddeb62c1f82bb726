"""What facts are held against: each check takes facts and one sample, and raises `Wrong` with a sentence.

They are functions, and not tests, so that wrong ops can be planted: a check that was never seen to fail proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from telegrad.errors import GraphError
from telegrad.ir import Function, Graph, Type, make_op
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.types import DType
from telegrad.ir.value import V, apply
from telegrad.ir.verify import verify
from telegrad.ops.control import Gradient
from telegrad.ops.elementwise import Cast, Constant, Elementwise
from telegrad.ops.reduce import Reduction
from telegrad.ops.shape import BroadcastTo, Flip, Move
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.compiler.pipeline import LOWERING, Pass, compile_function
from telegrad_server.executors.array import numpy_executor

from tests.compiler.graphs import interpret, same_bits
from tests.ops.checks import Array, evaluate, inputs_for, type_of
from tests.ops.registry.facts import KINDS, Facts, Refusal, Sample

EXECUTOR = numpy_executor()


class Wrong(AssertionError):
    """An op and its facts do not agree."""


def wrong(sample: Sample, what: str) -> NoReturn:
    """Raise Wrong about a sample."""
    types = ", ".join(map(str, map(type_of, sample.arrays)))
    raise Wrong(f"{sample.op!r}({types}), seed {sample.seed}: {what}")


# ---- are the facts complete?


def missing_parts(facts: Facts) -> list[str]:
    """What an op's facts lack, in words."""
    found: list[str] = []
    if len(facts.samples) < 5:
        found.append(f"{len(facts.samples)} samples of 5")
    if len(facts.refusals) < 3:
        found.append(f"{len(facts.refusals)} refusals of 3")
    if (facts.reference is None) == (facts.laws is None):
        found.append("a reference, or laws")
    if not facts.dtypes and any(map(_free, [sample.arrays for sample in facts.samples])):
        found.append("dtypes")
    found += [f"a tolerance for {dtype}" for dtype in facts.dtypes if dtype.is_float and dtype not in facts.spacings]
    for kind, is_there in KINDS.items():
        if is_there(facts.samples) == (kind in facts.without):
            found.append(f"a sample that is {kind}" if kind not in facts.without else f"no reason against {kind}")
    if len({type(sample.op) for sample in facts.samples}) > 1:
        found.append("samples of one op only")
    return found


# ---- operands in other dtypes and layouts


def is_float(a: Array) -> bool:
    """Whether the array is of a floating-point dtype; NumPy has no kind for bfloat16."""
    return type_of(a).dtype.is_float


def _free(arrays: Sequence[Array]) -> tuple[int, ...]:
    """The operands whose dtype may be chosen: the floating-point ones, else the integers, else the booleans."""
    for name in ("float64", "int64", "bool"):
        found = tuple([i for i, a in enumerate(arrays) if a.dtype.name == name])
        if found:
            return found
    return ()


def converted(a: Array, dtype: DType) -> Array:
    """The array in another dtype, with numbers that it can hold: halves count as one, and unsigned ones fold over."""
    if dtype.is_float or a.dtype == bool:
        return a.astype(numpy_dtype(dtype))
    whole = np.rint(2 * a) if a.dtype.kind == "f" else a
    if dtype.kind == "bool":
        return np.asarray(whole % 2 == 1)
    return np.where((whole < 0) & (dtype.kind == "uint"), -whole - 1, whole).astype(numpy_dtype(dtype))


def operands_in(sample: Sample, dtype: DType) -> tuple[Array, ...]:
    """The sample's operands, those that are free in this dtype."""
    free = _free(sample.arrays)
    return tuple([converted(a, dtype) if i in free else a for i, a in enumerate(sample.arrays)])


def can_be(facts: Facts, sample: Sample, dtype: DType) -> bool:
    """Whether the sample has a meaning in this dtype: NaN is no integer, and 1.5 no number to pad integers with."""
    free = [sample.arrays[i] for i in _free(sample.arrays)]
    if dtype not in facts.dtypes or not free:
        return False
    if dtype.is_float:
        return True
    if not all(np.isfinite(a).all() for a in free):
        return False
    try:
        result_types(sample.op, tuple(map(type_of, operands_in(sample, dtype))), ())
    except GraphError:
        return sample is facts.samples[0]  # which must be taken
    return True


def strided(a: Array, layout: str) -> Array:
    """The same elements in memory that is not contiguous."""
    if layout == "transposed":
        return np.asfortranarray(a) if a.ndim else a
    if layout == "reversed":
        return np.flip(np.flip(a).copy()) if a.ndim else a
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]) if a.ndim else (2,), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2] if a.ndim else wide[0:1].reshape(())


LAYOUTS = ("transposed", "reversed", "every other")


# ---- values


def near(found: Array, exact: Array, spacings: float, dtype: Any, size: Any) -> Array:
    """Where numbers are so many spacings of the dtype from the exact ones at most; NaN and infinities in place."""
    info = ml_dtypes.finfo(dtype)
    limit = spacings * np.maximum(float(info.eps) * size, float(info.smallest_subnormal))
    with np.errstate(invalid="ignore"):
        return (np.abs(found - exact) <= limit) | (found == exact) | (np.isnan(found) & np.isnan(exact))


def _agree(sample: Sample, facts: Facts, what: str, found: Array, wanted: Any) -> None:
    """Raise Wrong unless shapes are equal and numbers as close as the facts say; integers must be equal."""
    dtype = type_of(found).dtype
    wanted = np.asarray(wanted)
    if found.shape != wanted.shape:
        wrong(sample, f"{what} has shape {found.shape}, the reference {wanted.shape}")
    if dtype.kind == "bool":
        is_right = np.equal(found, wanted.astype(bool))
    elif not dtype.is_float:
        bits = 8 * dtype.itemsize
        exact = np.array([int(v) % 2**bits for v in wanted.reshape(-1).tolist()], object).reshape(wanted.shape)
        is_right = np.equal(np.array([int(v) % 2**bits for v in found.reshape(-1).tolist()], object), exact.reshape(-1))
    else:
        wide, exact = found.astype(np.float64), wanted.astype(np.float64)
        size = np.abs(exact) if facts.is_elementwise else np.abs(exact[np.isfinite(exact)]).max(initial=facts.scale)
        is_right = near(wide, exact, facts.spacings[dtype], found.dtype, size)
    if not np.all(is_right):
        wrong(sample, f"{what} in {dtype}:\nop        {found.tolist()!s:.500}\nreference {wanted.tolist()!s:.500}")


def _check_results(facts: Facts, sample: Sample, found: Sequence[Array], arrays: Sequence[Array]) -> None:
    """The results against the reference, or the laws, on the very operands that the op was given, in float64."""
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    with np.errstate(all="ignore"):
        if facts.laws is not None:
            tolerance = facts.spacings[type_of(found[0]).dtype]
            eps = float(ml_dtypes.finfo(found[0].dtype).eps)
            for left, right in facts.laws(sample.op, [y.astype(np.float64) for y in found], *wide):
                scale = max(1.0, np.abs(right).max(initial=0.0))
                if left.shape != right.shape or not np.all(np.abs(left - right) <= tolerance * eps * scale):
                    wrong(sample, f"a law does not hold:\n{left.tolist()!s:.500}\n{right.tolist()!s:.500}")
            return
        assert facts.reference is not None
        wanted = facts.reference(sample.op, *wide)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if len(wanted) != len(found):
        wrong(sample, f"{len(found)} results, the reference has {len(wanted)}")
    for y, reference in zip(found, wanted, strict=True):
        _agree(sample, facts, "the result", y, reference)


def _run(sample: Sample, arrays: Sequence[Array]) -> list[Array]:
    """The op on arrays, by its own eval; every type must be the inferred one."""
    xs = inputs_for(arrays)
    ys = apply(sample.op, xs)
    if arrays is sample.arrays and sample.through is not None:  # in another dtype the function converts first
        ys = sample.results(*xs)
        if ys[0].node.op != sample.op or ys[0].node.inputs != xs:
            wrong(sample, f"the public function makes {ys[0].node!r}")
    try:
        return evaluate(ys, dict(zip(xs, arrays, strict=True)))
    except Wrong:
        raise
    except AssertionError as error:
        wrong(sample, f"inference and execution do not agree: {error}")


def check_forward(facts: Facts, sample: Sample, dtype: DType | None = None) -> None:
    """The results, in the sample's own dtypes or in another one."""
    arrays = sample.arrays if dtype is None else operands_in(sample, dtype)
    _check_results(facts, sample, _run(sample, arrays), arrays)


def check_layouts(facts: Facts, sample: Sample) -> None:
    """The results on operands that are not contiguous: as the op sees them, and as views in a plan."""
    for layout in LAYOUTS:
        arrays = [strided(a, layout) for a in sample.arrays]
        _check_results(facts, sample, _run(sample, arrays), arrays)
    flipped = [np.flip(a).copy() for a in sample.arrays]
    xs = inputs_for(flipped)
    views = [Flip(tuple(range(x.ndim)))(x) for x in xs]
    graph = Graph.of(xs, sample.results(*views))
    for a, b in zip(interpret(graph, flipped), EXECUTOR.run(compile_function(Function(graph)), flipped), strict=True):
        if not same_bits(a, b):
            wrong(sample, "on views, a plan gives other bits than the interpreter")


def check_dtypes(facts: Facts, sample: Sample) -> None:
    """The op takes the dtypes of its facts, and refuses all others with a sentence."""
    free = _free(sample.arrays)
    for dtype in t.DTYPES:
        types = [type_of(a) for a in sample.arrays]
        types = [Type(x.shape, dtype) if i in free else x for i, x in enumerate(types)]
        try:
            result_types(sample.op, tuple(types), ())
        except GraphError:
            if dtype in facts.dtypes:
                wrong(sample, f"{dtype} is refused")
        else:
            if dtype not in facts.dtypes:
                wrong(sample, f"{dtype} is taken")


# ---- bits


def with_gradients(facts: Facts, sample: Sample, xs: Sequence[V], ys: Sequence[V]) -> list[V]:
    """The results and, where there are any, their gradients for cotangents of ones and twos."""
    wrt = [x for i, x in enumerate(xs) if x.dtype.is_float and facts.has_gradient(sample.op, i)]
    floats = [y for y in ys if y.dtype.is_float]
    if not wrt or not floats:
        return list(ys)
    gs = [BroadcastTo(y.shape)(y.literal(1 + i % 2, y.dtype)) for i, y in enumerate(floats)]
    return [*ys, *Gradient(len(floats)).results(*floats, *gs, *wrt)]


def graph_of(facts: Facts, sample: Sample, arrays: Sequence[Array]) -> Graph:
    """A graph in which passes find something: the op twice, on constants, and with its gradients."""
    xs = inputs_for(arrays)
    outputs = with_gradients(facts, sample, xs, sample.results(*xs))
    outputs += apply(sample.op, xs)
    if isinstance(sample.op, Elementwise | Cast | Move | Reduction) and all(a.size for a in arrays):
        numbers = [(a.reshape(-1)[0].item(), type_of(a)) for a in arrays]
        constants = [apply(Constant(number, x.dtype), ())[0] for number, x in numbers]
        outputs += apply(sample.op, [BroadcastTo(x.shape)(c) for c, (_, x) in zip(constants, numbers, strict=True)])
    return Graph.of(xs, outputs)


def lowered(graph: Graph) -> Graph:
    """The graph as it can run, without any optimisation."""
    for step in LOWERING:
        graph = step.run(graph)
    return graph


def check_pass(step: Pass, facts: Facts, sample: Sample) -> None:
    """An exact pass changes no bit; a rounding one is no further from float64, by more than one rounding."""
    arrays = sample.arrays
    if step.kind == "rounding" and t.float32 in facts.dtypes:
        arrays = operands_in(sample, t.float32)
    graph = graph_of(facts, sample, arrays)
    low = graph if step in LOWERING else lowered(graph)
    after = step.run(low)
    verify(after)
    if step in LOWERING:
        known = dict(zip(graph.inputs, arrays, strict=True))
        before = [np.asarray(a) for a in evaluate(graph.outputs, known)]
        after = lowered(after)
    else:
        before = interpret(low, arrays)
    found = interpret(after, arrays)
    if step.kind == "exact":
        if not all(map(same_bits, before, found)):
            wrong(sample, f"the pass {step.name} changes bits")
        return
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    exact = interpret(lowered(graph_of(facts, sample, wide)), wide)
    for a, b, c in zip(before, found, exact, strict=True):
        if not is_float(a) or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            if not same_bits(a, b):
                wrong(sample, f"the pass {step.name} changes integers, NaN or infinities")
            continue
        finite = np.isfinite(a) & np.isfinite(c)
        without, with_it = (_apart(x[finite], c[finite]) for x in (a, b))
        if with_it > without + float(ml_dtypes.finfo(a.dtype).eps) * np.abs(c[finite]).max(initial=0.0):
            wrong(sample, f"the pass {step.name} is worse: {with_it} from float64, {without} without it")


def _apart(a: Array, exact: Array) -> float:
    return float(np.abs(a.astype(np.float64) - exact).max(initial=0.0))


def check_repeats(facts: Facts, sample: Sample) -> None:
    """Run again, compiled again, planned or interpreted: the same bits, if the facts say so."""
    graph = graph_of(facts, sample, sample.arrays)
    plan = compile_function(Function(graph))
    runs = [EXECUTOR.run(plan, sample.arrays), EXECUTOR.run(plan, sample.arrays)]
    fresh = numpy_executor(is_poisoned=True)
    runs += [fresh.run(compile_function(Function(graph)), sample.arrays), interpret(lowered(graph), sample.arrays)]
    if not facts.is_deterministic:
        return
    for number, run in enumerate(runs[1:], 2):
        if not all(map(same_bits, runs[0], run)):
            wrong(sample, f"run {number} has other bits than the first")


# ---- cost, attributes, refusals


def check_cost(facts: Facts, sample: Sample) -> None:
    """Operations by the formula of the facts; bytes that suffice for operands and results, or what the facts say."""
    types = tuple(map(type_of, sample.arrays))
    cost = sample.op.cost(*types)
    if type(cost.flops) is not int or type(cost.nbytes) is not int:
        wrong(sample, f"the cost {cost} is not of integers")
    if cost.flops != (flops := facts.flops(sample.op, *types)):
        wrong(sample, f"costs {cost.flops} operations, {flops} by the formula")
    results = result_types(sample.op, types, ())
    moved = sum(x.nbytes for x in (*types, *results)) if facts.moves is None else facts.moves(sample.op, *types)
    if cost.nbytes < moved:
        wrong(sample, f"moves {cost.nbytes} bytes, of operands and results there are {moved}")


def check_wire(facts: Facts, sample: Sample) -> None:
    """Attributes survive the wire, to the letter."""
    again = make_op(sample.op.name, sample.op.attributes())
    if again != sample.op or repr(again) != repr(sample.op) or hash(again) != hash(sample.op):
        wrong(sample, f"comes back as {again!r}")


def refused(refusal: Refusal) -> None:
    """Do what the op must refuse: types when the graph is built, arrays when it runs."""
    rng = np.random.default_rng(0)
    given = [x if isinstance(x, Type) else x(rng) for x in refusal.operands]
    types = tuple([x if isinstance(x, Type) else type_of(x) for x in given])
    result_types(refusal.op, types, ())
    arrays = [x for x in given if not isinstance(x, Type)]
    if arrays:
        xs = inputs_for(arrays)
        EXECUTOR.run(compile_function(Function(Graph.of(xs, apply(refusal.op, xs)))), arrays)
