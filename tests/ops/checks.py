"""The plainest interpreter of graphs, and gradients by central differences: what ops are tested against."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad.autodiff import expand_gradients, gradient
from telegrad.ir import Graph, Op, Type, Value, new_input, topological
from telegrad.ops.loops import Loop, Scan, Switch, While
from telegrad.wire.arrays import from_numpy_dtype
from telegrad_server.executors.array_module import NumpyModule

Array = npt.NDArray[Any]
Build = Callable[..., "Value | Sequence[Value]"]

XP = NumpyModule()


def generator(name: str) -> np.random.Generator:
    """Random numbers that depend on the name of what is tested, and on nothing else."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def type_of(array: Array) -> Type:
    return Type(array.shape, from_numpy_dtype(array.dtype))


def inputs_for(arrays: Sequence[Array]) -> tuple[Value, ...]:
    return tuple(new_input(type_of(np.asarray(a))) for a in arrays)


def evaluate(outputs: Sequence[Value], known: Mapping[Value, Array], xp: Any = XP) -> list[Array]:
    """The arrays of the outputs, given those of the inputs. Checks the type of every value on the way."""
    memory: dict[Value, Any] = {value: np.asarray(array) for value, array in known.items()}  # 0-d numbers are none
    pending = list(expand_gradients(outputs))
    results = list(pending)
    with np.errstate(all="ignore"):
        for node in topological(pending, stop=[v.node for v in known]):
            operands = [memory[v] for v in node.inputs]
            if isinstance(node.op, Loop):
                found = _run_loop(node.op, [region_function(r, xp) for r in node.regions], operands)
            elif node.op.expands and not hasattr(node.op, "eval"):
                parts = node.op.in_primitives(*node.inputs)  # type: ignore[attr-defined]
                found = evaluate(parts, dict(zip(node.inputs, operands, strict=True)), xp)
            elif node.regions:
                lowered = node.op.lower(node.inputs, node.regions)  # type: ignore[attr-defined]
                inner = dict(zip(node.inputs, operands, strict=True))
                found = evaluate(lowered, inner, xp)
            else:
                result = node.op.eval(xp, *operands)
                found = list(result) if len(node.types) > 1 else [result]
            found = [np.asarray(array) for array in found]  # NumPy's 0-d results are no arrays
            for value, array in zip(node.outputs, found, strict=True):
                assert type_of(array) == value.type, (node, array)
                memory[value] = array
    return [np.asarray(memory[v]) for v in results]


def region_function(region: Graph, xp: Any = XP) -> Callable[..., list[Array]]:
    """The region as a function of arrays."""
    return lambda *arrays: evaluate(region.outputs, dict(zip(region.inputs, arrays, strict=True)), xp)


def _run_loop(op: Op, bodies: Sequence[Callable[..., list[Array]]], operands: Sequence[Array]) -> list[Array]:
    """What loops mean, in the plainest Python."""
    if isinstance(op, Switch):
        return bodies[min(max(int(operands[0]), 0), len(bodies) - 1)](*operands[1:])
    assert isinstance(op, Scan | While)
    carry, rest = list(operands[: op.carries]), list(operands[op.carries :])
    if isinstance(op, While):
        trip = 0
        while bodies[0](np.int64(trip), *carry, *rest)[0]:
            carry = bodies[1](np.int64(trip), *carry, *rest)
            trip += 1
        return carry
    xs, constants = rest[: op.xs], rest[op.xs :]
    stacked: dict[int, list[Array]] = {}
    for i in reversed(range(op.length)) if op.reverse else range(op.length):
        results = bodies[0](np.int64(i), *carry, *[x[i] for x in xs], *constants)
        carry, stacked[i] = results[: op.carries], results[op.carries :]
    return carry + [np.stack(ys) for ys in zip(*[stacked[i] for i in range(op.length)], strict=True)]


def call(build: Build, *arrays: Array) -> Any:
    """What ``build`` gives on arrays: one array, or a list of them."""
    xs = inputs_for(arrays)
    built = build(*xs)
    known = dict(zip(xs, arrays, strict=True))
    if isinstance(built, Value):
        return evaluate([built], known)[0]
    return evaluate(list(built), known)


def _weighted_sum(ys: Sequence[Value], xs: Sequence[Value], arrays: Sequence[Array]) -> float:
    """<g, y>, the arrays being those of the x and then the g."""
    found = evaluate(ys, dict(zip(xs, arrays, strict=False)))
    return float(sum(np.sum(g * y) for g, y in zip(arrays[len(xs) :], found, strict=True)))


def differences(f: Callable[[Sequence[Array]], float], arrays: Sequence[Array], i: int, step: float) -> Array:
    """The derivative of f with respect to each element of the i-th array, by central differences."""
    slope = np.zeros(arrays[i].shape)
    for at in np.ndindex(arrays[i].shape):
        ends: list[float] = []
        for sign in (1.0, -1.0):
            moved = [a.copy() for a in arrays]
            moved[i][at] += sign * step
            ends.append(f(moved))
        slope[at] = (ends[0] - ends[1]) / (2 * step)
    return slope


class WrongGradient(AssertionError):
    """A rule and finite differences do not agree."""


def _compare(found: Array, wanted: Array, what: str, tolerance: float) -> None:
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=tolerance, atol=tolerance * scale):
        raise WrongGradient(f"{what}:\nrule        {found.tolist()}\ndifferences {wanted.tolist()}")


def check_gradients(
    build: Build,
    arrays: Sequence[Array],
    *,
    name: str,
    order: int = 2,
    tolerance: float = 1e-6,
    step: float = 1e-6,
) -> None:
    """Raise WrongGradient unless the rules agree with central differences, for random cotangents, to this order.

    The second order is the derivative of <v, gradient> with respect to the operands and to the cotangents.
    """
    rng = generator(name)
    xs = inputs_for(arrays)
    built = build(*xs)
    ys = [y for y in ([built] if isinstance(built, Value) else built) if y.dtype.is_float]
    wrt = [x for x in xs if x.dtype.is_float]
    values: list[Array] = [np.array(a) for a in arrays]
    seeds = [rng.normal(size=y.shape) for y in ys]
    for level in range(1, order + 1):
        gs = inputs_for(seeds)
        if not ys or not wrt:
            return
        scalar = partial(_weighted_sum, ys, xs)
        found = gradient(ys, gs, wrt)
        for x, g in zip(wrt, found, strict=True):
            assert g.type == x.type, f"{name}: the gradient of {x.type} is {g.type}"
        known = {**dict(zip(xs, values, strict=True)), **dict(zip(gs, seeds, strict=True))}
        slopes = evaluate(found, known)
        _check_linear(found, known, gs, f"{name}, order {level}")
        for x, slope in zip(wrt, slopes, strict=True):
            i = xs.index(x)
            _compare(slope, differences(scalar, [*values, *seeds], i, step), f"{name}, order {level}, {x}", tolerance)
        # one level up: the gradients are the outputs, the cotangents are operands like the others
        xs, values, wrt = (*xs, *gs), [*values, *seeds], [*wrt, *gs]
        ys = list(found)
        seeds = [rng.normal(size=y.shape) for y in ys]


def _check_linear(found: Sequence[Value], known: Mapping[Value, Array], gs: Sequence[Value], what: str) -> None:
    """Rules are linear in g: twice the cotangents less the other cotangents give the same of the gradients."""
    rng = generator(what)
    others = {g: rng.normal(size=g.shape) for g in gs}
    both = {g: 2.0 * known[g] - others[g] for g in gs}
    first, second, sum_ = (evaluate(found, {**known, **change}) for change in ({}, others, both))
    for a, b, c in zip(first, second, sum_, strict=True):
        _compare(c, 2.0 * a - b, f"{what}: linear in g", 1e-9)
