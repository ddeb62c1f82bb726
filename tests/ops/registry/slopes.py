"""Gradients held against central differences in float64; each check takes facts and one sample, and raises `Wrong`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from telegrad.autodiff import gradient
from telegrad.ir import Value, new_input
from telegrad.ir import types as t
from telegrad.ir.op import result_types
from telegrad.ir.types import DType
from telegrad.ir.value import apply
from telegrad.wire.arrays import numpy_dtype

from tests.ops.checks import Array, evaluate, inputs_for, type_of
from tests.ops.registry.checks import is_float, near, operands_in, wrong
from tests.ops.registry.facts import Facts, Sample


def _wrt(facts: Facts, sample: Sample, arrays: Sequence[Array]) -> list[int]:
    return [i for i, a in enumerate(arrays) if is_float(a) and facts.has_gradient(sample.op, i)]


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
                wrong(sample, f"the gradient of a {x.type} is a {g.type}")
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
                wrong(sample, f"order {order}: the rule gives {rule!r} along a direction, differences {slope!r}")
    others = normal(slopes.gs)
    mixed = [2.0 * a - b for a, b in zip(gs, others, strict=True)]
    at_others, at_mixed = (slopes.run(slopes.first, *xs, *g) for g in (others, mixed))
    for a, b, c in zip(first, at_others, at_mixed, strict=True):
        if not np.allclose(2.0 * a - b, c, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(c).max(initial=0.0))):
            wrong(sample, "the gradient is not linear in the cotangent")


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
        wrong(sample, "a value that is several operands does not get the sum of their gradients")


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
        wrong(sample, f"second gradients in {dtype} are {[str(g.type) for g in slopes.second]}")
    gs = _normal(np.random.default_rng(sample.seed + 2), slopes.gs)
    wide = [a.astype(np.float64) if is_float(a) else a for a in arrays]
    exact = Slopes(facts, sample, wide)
    found = slopes.run(slopes.first, *arrays, *gs)
    wanted = exact.run(exact.first, *wide, *[g.astype(np.float64) for g in gs])
    scale = max([np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in wanted])
    for a, b in zip(found, wanted, strict=True):
        if not np.all(near(a.astype(np.float64), b, SLOPE_SPACINGS[dtype], a.dtype, scale)):
            wrong(sample, f"the gradient in {dtype}:\nrule    {a.tolist()!s:.500}\nfloat64 {b.tolist()!s:.500}")


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
        wrong(sample, f"gradients for {[g is not None for g in found]} instead of {wanted}")
