"""What facts are held against: each check takes facts and one sample, and raises `Wrong` with a sentence.

They are functions, and not tests, so that wrong ops can be planted: a check that was never seen to fail proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from telegrad.autodiff import gradient
from telegrad.errors import GraphError
from telegrad.ir import Function, Graph, Type, Value, make_op, new_input
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


def _wrong(sample: Sample, what: str) -> NoReturn:
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


def _is_float(a: Array) -> bool:
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


def can_be(sample: Sample, dtype: DType) -> bool:
    """Whether there are operands in this dtype: NaN and infinities are no integers."""
    free = [sample.arrays[i] for i in _free(sample.arrays)]
    return bool(free) and (dtype.is_float or all(np.isfinite(a).all() for a in free))


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


def _near(found: Array, exact: Array, spacings: float, dtype: Any, size: Any) -> Array:
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
        _wrong(sample, f"{what} has shape {found.shape}, the reference {wanted.shape}")
    if dtype.kind == "bool":
        is_right = np.equal(found, wanted.astype(bool))
    elif not dtype.is_float:
        bits = 8 * dtype.itemsize
        exact = np.array([int(v) % 2**bits for v in wanted.reshape(-1).tolist()], object).reshape(wanted.shape)
        is_right = np.equal(np.array([int(v) % 2**bits for v in found.reshape(-1).tolist()], object), exact.reshape(-1))
    else:
        wide, exact = found.astype(np.float64), wanted.astype(np.float64)
        size = np.abs(exact) if facts.is_elementwise else np.abs(exact[np.isfinite(exact)]).max(initial=facts.scale)
        is_right = _near(wide, exact, facts.spacings[dtype], found.dtype, size)
    if not np.all(is_right):
        _wrong(sample, f"{what} in {dtype}:\nop        {found.tolist()!s:.500}\nreference {wanted.tolist()!s:.500}")


def _check_results(facts: Facts, sample: Sample, found: Sequence[Array], arrays: Sequence[Array]) -> None:
    """The results against the reference, or the laws, on the very operands that the op was given, in float64."""
    wide = [a.astype(np.float64) if _is_float(a) else a for a in arrays]
    with np.errstate(all="ignore"):
        if facts.laws is not None:
            tolerance = facts.spacings[type_of(found[0]).dtype]
            eps = float(ml_dtypes.finfo(found[0].dtype).eps)
            for left, right in facts.laws(sample.op, [y.astype(np.float64) for y in found], *wide):
                scale = max(1.0, np.abs(right).max(initial=0.0))
                if left.shape != right.shape or not np.all(np.abs(left - right) <= tolerance * eps * scale):
                    _wrong(sample, f"a law does not hold:\n{left.tolist()!s:.500}\n{right.tolist()!s:.500}")
            return
        assert facts.reference is not None
        wanted = facts.reference(sample.op, *wide)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if len(wanted) != len(found):
        _wrong(sample, f"{len(found)} results, the reference has {len(wanted)}")
    for y, reference in zip(found, wanted, strict=True):
        _agree(sample, facts, "the result", y, reference)


def _run(sample: Sample, arrays: Sequence[Array]) -> list[Array]:
    """The op on arrays, by its own eval; every type must be the inferred one."""
    xs = inputs_for(arrays)
    ys = apply(sample.op, xs)
    if arrays is sample.arrays and sample.through is not None:  # in another dtype the function converts first
        ys = sample.results(*xs)
        if ys[0].node.op != sample.op or ys[0].node.inputs != xs:
            _wrong(sample, f"the public function makes {ys[0].node!r}")
    try:
        return evaluate(ys, dict(zip(xs, arrays, strict=True)))
    except Wrong:
        raise
    except AssertionError as error:
        _wrong(sample, f"inference and execution do not agree: {error}")


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
            _wrong(sample, "on views, a plan gives other bits than the interpreter")


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
                _wrong(sample, f"{dtype} is refused")
        else:
            if dtype not in facts.dtypes:
                _wrong(sample, f"{dtype} is taken")


# ---- gradients


def _wrt(facts: Facts, sample: Sample, arrays: Sequence[Array]) -> list[int]:
    return [i for i, a in enumerate(arrays) if _is_float(a) and facts.has_gradient(sample.op, i)]


def has_slopes(facts: Facts, sample: Sample) -> bool:
    """Whether finite differences can be compared with a gradient here."""
    if not sample.is_smooth or not _wrt(facts, sample, sample.arrays):
        return False
    types = result_types(sample.op, tuple(map(type_of, sample.arrays)), ())
    return any(y.dtype.is_float for y in types)


class Slopes:
    """An op with its first and second gradients, as functions of operands, cotangents, and cotangents of gradients."""

    def __init__(self, facts: Facts, sample: Sample, arrays: Sequence[Array]) -> None:
        self.xs = inputs_for(arrays)
        self.wrt = [self.xs[i] for i in _wrt(facts, sample, arrays)]
        self.ys = [y for y in sample.results(*self.xs) if y.dtype.is_float]
        self.gs = [_input_like(y) for y in self.ys]
        self.first = gradient(self.ys, self.gs, self.wrt)
        for x, g in zip(self.wrt, self.first, strict=True):
            if g.type != x.type:
                _wrong(sample, f"the gradient of a {x.type} is a {g.type}")
        self.us = [_input_like(x) for x in self.wrt]
        self.second = gradient(self.first, self.us, [*self.wrt, *self.gs])

    def run(self, outputs: Sequence[Value], *arrays: Array) -> list[Array]:
        """The outputs on operands, then cotangents, then cotangents of gradients, as many as there are."""
        return evaluate(outputs, dict(zip([*self.xs, *self.gs, *self.us], arrays, strict=False)))


def _input_like(x: Value) -> Value:
    return new_input(x.type)


def _inner(left: Sequence[Array], right: Sequence[Array]) -> float:
    return float(sum(np.sum(a * b) for a, b in zip(left, right, strict=True)))


def _sizes(arrays: Sequence[Array]) -> list[Array]:
    return [np.abs(a) for a in arrays]


def _difference(f: Callable[[float], Array], step: float) -> Array:
    """The derivative of f at 0 by central differences of two widths, in which all powers below the fifth cancel."""
    return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step)


def check_slopes(facts: Facts, sample: Sample, *, directions: int = 2, step: float = 5e-4) -> None:
    """First and second gradient, for random cotangents, against differences along random directions in float64.

    The second is the derivative of <u, gradient> by operands and cotangents. Both must be linear in the cotangents.
    """
    slopes = Slopes(facts, sample, sample.arrays)
    rng = np.random.default_rng(sample.seed + 1)
    normal = partial(_normal, rng)
    xs, gs, us = list(sample.arrays), normal(slopes.gs), normal(slopes.us)
    first, second = slopes.run(slopes.first, *xs, *gs), slopes.run(slopes.second, *xs, *gs, *us)
    moving = [i for i, x in enumerate(slopes.xs) if any(x == w for w in slopes.wrt)]
    for _ in range(directions):
        dx, dg = normal(slopes.wrt), normal(slopes.gs)

        def at(s: float, dx: list[Array] = dx, dg: list[Array] = dg) -> Array:
            moved = list(xs)
            for i, d in zip(moving, dx, strict=True):
                moved[i] = np.asarray(xs[i] + s * d)
            turned = [g + s * d for g, d in zip(gs, dg, strict=True)]
            n = len(slopes.ys)
            found = slopes.run([*slopes.ys, *slopes.first], *moved, *turned)
            return np.array([_inner(gs, found[:n]), _inner(us, found[n:])])

        rules = np.array([_inner(first, dx), _inner(second, [*dx, *dg])])
        sizes = [_inner(_sizes(a), _sizes(b)) for a, b in ((first, dx), (second, [*dx, *dg]))]
        wanted = _difference(at, step)
        for order, rule, slope, size in zip((1, 2), rules, wanted, sizes, strict=True):
            if not abs(rule - slope) <= facts.slope_tolerance * max(1.0, size):
                _wrong(sample, f"order {order}: the rule gives {rule!r} along a direction, differences {slope!r}")
    others = normal(slopes.gs)
    mixed = [2.0 * a - b for a, b in zip(gs, others, strict=True)]
    at_others, at_mixed = (slopes.run(slopes.first, *xs, *g) for g in (others, mixed))
    for a, b, c in zip(first, at_others, at_mixed, strict=True):
        if not np.allclose(2.0 * a - b, c, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(c).max(initial=0.0))):
            _wrong(sample, "the gradient is not linear in the cotangent")


def _normal(rng: np.random.Generator, values: Sequence[Value]) -> list[Array]:
    return [rng.normal(size=x.shape).astype(numpy_dtype(x.dtype)) for x in values]


def check_reuse(facts: Facts, sample: Sample) -> None:
    """The gradient where one value is several operands is the sum of those by each operand alone."""
    arrays = sample.arrays
    same = [i for i in _wrt(facts, sample, arrays) if type_of(arrays[i]) == type_of(arrays[0])]
    xs = inputs_for(arrays)
    shared = [xs[0] if i in same else x for i, x in enumerate(xs)]
    ys, zs = ([y for y in apply(sample.op, operands) if y.dtype.is_float] for operands in (xs, shared))
    gs = [_input_like(y) for y in ys]
    seeds = _normal(np.random.default_rng(sample.seed + 3), gs)
    known = dict(zip([*xs, *gs], [*arrays, *seeds], strict=True)) | {xs[i]: arrays[0] for i in same}
    alone = evaluate(gradient(ys, gs, [xs[i] for i in same]), known)
    (joint,) = evaluate(gradient(zs, gs, [xs[0]]), known)
    if not np.allclose(np.sum(alone, axis=0), joint, rtol=1e-12, atol=1e-12, equal_nan=True):
        _wrong(sample, "a value that is several operands does not get the sum of their gradients")


def is_reusable(facts: Facts, sample: Sample) -> bool:
    """Whether several differentiable operands have one type."""
    wrt = _wrt(facts, sample, sample.arrays)
    return len([i for i in wrt if type_of(sample.arrays[i]) == type_of(sample.arrays[0])]) > 1


SLOPE_SPACINGS = {t.float32: 256.0, t.float16: 16.0, t.bfloat16: 16.0}
"""How far a first gradient may be from that in float64, at the size of its largest element: each op rounds."""


def check_narrow_slopes(facts: Facts, sample: Sample, dtype: DType) -> None:
    """The first gradient in another dtype against that in float64 of the same numbers; types to the second order."""
    arrays = operands_in(sample, dtype)
    slopes = Slopes(facts, sample, arrays)
    if {g.dtype for g in slopes.second[: len(slopes.wrt)]} - {dtype}:
        _wrong(sample, f"second gradients in {dtype} are {[str(g.type) for g in slopes.second]}")
    gs = _normal(np.random.default_rng(sample.seed + 2), slopes.gs)
    wide = [a.astype(np.float64) if _is_float(a) else a for a in arrays]
    exact = Slopes(facts, sample, wide)
    found = slopes.run(slopes.first, *arrays, *gs)
    wanted = exact.run(exact.first, *wide, *[g.astype(np.float64) for g in gs])
    scale = max([np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in wanted])
    for a, b in zip(found, wanted, strict=True):
        if not np.all(_near(a.astype(np.float64), b, SLOPE_SPACINGS[dtype], a.dtype, scale)):
            _wrong(sample, f"the gradient in {dtype}:\nrule    {a.tolist()!s:.500}\nfloat64 {b.tolist()!s:.500}")


def check_undefined(facts: Facts, sample: Sample) -> None:
    """The rule gives a gradient for the operands that the facts say, None for the others."""
    xs = inputs_for(sample.arrays)
    ys = apply(sample.op, xs)
    if not xs or not any(y.dtype.is_float for y in ys):
        return
    gs = tuple([_input_like(y) if y.dtype.is_float else None for y in ys])
    found = sample.op.vjp(gs[0] if len(ys) == 1 else gs, ys[0] if len(ys) == 1 else ys, *xs)
    wanted = [x.dtype.is_float and facts.has_gradient(sample.op, i) for i, x in enumerate(xs)]
    if wanted != [g is not None for g in found]:
        _wrong(sample, f"gradients for {[g is not None for g in found]} instead of {wanted}")


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
            _wrong(sample, f"the pass {step.name} changes bits")
        return
    wide = [a.astype(np.float64) if _is_float(a) else a for a in arrays]
    exact = interpret(lowered(graph_of(facts, sample, wide)), wide)
    for a, b, c in zip(before, found, exact, strict=True):
        if not _is_float(a) or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            if not same_bits(a, b):
                _wrong(sample, f"the pass {step.name} changes integers, NaN or infinities")
            continue
        finite = np.isfinite(a) & np.isfinite(c)
        without, with_it = (_apart(x[finite], c[finite]) for x in (a, b))
        if with_it > without + float(ml_dtypes.finfo(a.dtype).eps) * np.abs(c[finite]).max(initial=0.0):
            _wrong(sample, f"the pass {step.name} is worse: {with_it} from float64, {without} without it")


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
            _wrong(sample, f"run {number} has other bits than the first")


# ---- cost, attributes, refusals


def check_cost(facts: Facts, sample: Sample) -> None:
    """Operations by the formula of the facts; bytes that suffice for operands and results, or what the facts say."""
    types = tuple(map(type_of, sample.arrays))
    cost = sample.op.cost(*types)
    if type(cost.flops) is not int or type(cost.nbytes) is not int:
        _wrong(sample, f"the cost {cost} is not of integers")
    if cost.flops != (flops := facts.flops(sample.op, *types)):
        _wrong(sample, f"costs {cost.flops} operations, {flops} by the formula")
    results = result_types(sample.op, types, ())
    moved = sum(x.nbytes for x in (*types, *results)) if facts.moves is None else facts.moves(sample.op, *types)
    if cost.nbytes < moved:
        _wrong(sample, f"moves {cost.nbytes} bytes, of operands and results there are {moved}")


def check_wire(facts: Facts, sample: Sample) -> None:
    """Attributes survive the wire, to the letter."""
    again = make_op(sample.op.name, sample.op.attributes())
    if again != sample.op or repr(again) != repr(sample.op) or hash(again) != hash(sample.op):
        _wrong(sample, f"comes back as {again!r}")


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
