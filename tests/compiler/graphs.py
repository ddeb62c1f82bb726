"""Random graphs, and the plainest way to run one: what passes, plans and executors are tested against."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from telegrad import ops
from telegrad.ir import Graph, Input, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ops import elementwise as e
from telegrad.ops.control import Alias, Barrier, Checkpoint, CustomVjp, Gradient
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.executors.array_module import NumpyModule

Array = npt.NDArray[Any]
NARROW, WIDE = (3, 4), (17, 33)
"""The sizes that shapes are made of. Order of summation, vector loops and BLAS show in wide arrays only."""

SPECIAL = [0.0, -0.0, 1.0, 2.0, -1.5, 0.1, float("inf"), float("-inf"), float("nan")]


def interpret(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The outputs, node by node in the graph's order, each value in memory of its own unless it is a view."""
    xp = NumpyModule()
    values: dict[tuple[int, int], Any] = {}
    for value, array in zip(graph.inputs, arrays, strict=True):
        values[id(value.node), 0] = array
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if isinstance(node.op, Input):
                continue
            found = node.op.eval(xp, *[values[id(v.node), v.index] for v in node.inputs])
            for i, result in enumerate(found if len(node.types) > 1 else (found,)):
                values[id(node), i] = result if node.op.is_view else np.array(result, order="C", copy=True)
    return [np.array(values[id(v.node), v.index], order="C") for v in graph.outputs]


def same_bits(x: Array, y: Array) -> bool:
    """Whether two arrays have the same type and bits; of NaN only the place counts."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind in "fV":
        gone = np.isnan(x)
        if not np.array_equal(gone, np.isnan(y)):
            return False
        x, y = np.where(gone, np.zeros((), x.dtype), x), np.where(gone, np.zeros((), y.dtype), y)
    return np.ascontiguousarray(x).tobytes() == np.ascontiguousarray(y).tobytes()


def arrays_for(graph: Graph, seed: int) -> list[Array]:
    """Operands of the graph's input types, some elements being zeros of both signs."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for type in graph.input_types:
        if type.dtype.kind == "bool":
            array = rng.integers(0, 2, type.shape) == 1
        elif type.dtype.is_float:
            array = rng.choice([-2.0, -0.5, -0.0, 0.0, 0.3, 1.0, 1.7, rng.normal()], type.shape)
        else:
            array = rng.integers(0, 3, type.shape)
        array = np.asarray(array).astype(numpy_dtype(type.dtype))
        array.flags.writeable = False
        found.append(array)
    return found


class RandomGraph:
    """Builds one random graph. Every kind of op that a plan treats in a way of its own has a turn."""

    def __init__(self, seed: int, *, sizes: tuple[int, int] = NARROW) -> None:
        self.random = random.Random(seed)
        n, m = self.sizes = sizes
        self.shapes = [(), (m,), (1,), (n, m), (m, n), (1, m), (n, 1), (2, n, m), (0, m)]
        self.inputs = [new_input(Type(self.random.choice(self.shapes), t.float32)) for _ in range(3)]
        self.inputs += [new_input(Type((n, m), t.float32)), new_input(Type((n, m), t.bool_))]
        self.inputs += [new_input(Type((5,), t.int64)), new_input(Type((2, 3), t.float16))]
        self.values: list[Value] = list(self.inputs)
        self.makers: list[Callable[[], Value | None]] = [
            self.unary, self.unary, self.binary, self.binary, self.binary, self.constant, self.reduction, self.reshape,
            self.permute, self.slice, self.broadcast, self.concat, self.matmul, self.choice, self.again, self.cast,
            self.other, self.fence, self.region, self.gradient,
        ]  # fmt: skip

    def build(self, size: int) -> Graph:
        """A graph of about ``size`` nodes, with some of its values, views and inputs among them, as outputs."""
        for _ in range(size):
            found = self.random.choice(self.makers)()
            if found is not None and found.size <= 50_000:
                self.values.append(found)
        outputs = [self.random.choice(self.values) for _ in range(4)] + self.values[-3:]
        return Graph.of(self.inputs, outputs)

    def pick(self, *, like: Value | None = None, is_float: bool = True, ndim: int | None = None) -> Value | None:
        """A recent value more often than an old one, so that chains grow."""
        fits = [
            v
            for v in self.values
            if (not is_float or v.dtype is t.float32)
            and (like is None or v.type == like.type)
            and (ndim is None or v.ndim == ndim)
        ]
        if not fits:
            return None
        return fits[max(self.random.randrange(len(fits)), self.random.randrange(len(fits)))]

    def unary(self) -> Value | None:
        x = self.pick()
        names = [
            ops.tanh,
            ops.sin,
            ops.negative,
            ops.abs,
            ops.sqrt,
            ops.square,
            ops.relu,
            ops.sigmoid,
            ops.floor,
            ops.exp,
        ]
        return None if x is None else self.random.choice(names)(x)

    def binary(self) -> Value | None:
        x = self.pick()
        y = self.pick(like=x if self.random.random() < 0.7 else None)
        if x is None or y is None:
            return None
        try:
            return self.random.choice([ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum])(x, y)
        except t.ShapeError:
            return None

    def constant(self) -> Value | None:
        x = self.pick()
        number = e.Constant(self.random.choice(SPECIAL), t.float32)
        scalar = self.inputs[0].bind(number, ())[0]
        if x is None or self.random.random() < 0.5:
            return ops.broadcast_to(scalar, self.random.choice(self.shapes))
        return self.random.choice([ops.add, ops.multiply])(x, scalar)

    def reduction(self) -> Value | None:
        x = self.pick()
        if x is None:
            return None
        axes = tuple(a for a in range(x.ndim) if self.random.random() < 0.5)
        function = self.random.choice([ops.sum, ops.mean, ops.prod, ops.max])
        if function is ops.max and 0 in x.shape:
            return None
        return function(x, axis=axes, keepdims=self.random.random() < 0.5)

    def reshape(self) -> Value | None:
        x = self.pick(is_float=False)
        if x is None:
            return None
        n, m = self.sizes
        shapes = [*self.shapes, (n * m,), (2, n * m), (m, n, 2), (1, n, m), (n, 1, m), (x.size,)]
        return ops.reshape(x, self.random.choice([s for s in shapes if t.product(s) == x.size]))

    def permute(self) -> Value | None:
        x = self.pick(is_float=False)
        return None if x is None else ops.permute_dims(x, self.random.sample(range(x.ndim), x.ndim))

    def slice(self) -> Value | None:
        x = self.pick(is_float=False)
        if x is None or x.ndim == 0:
            return None
        key = [self.random.choice([slice(None), slice(1, None), slice(None, None, 2), slice(None, None, -1)])] * x.ndim
        return x[tuple(key[: self.random.randint(1, x.ndim)])]

    def broadcast(self) -> Value | None:
        x = self.pick(is_float=False)
        return None if x is None or x.ndim > 2 else ops.broadcast_to(x, (2, *x.shape))

    def concat(self) -> Value | None:
        x = self.pick()
        return None if x is None or x.ndim == 0 else ops.concat([x, x * 2, x], axis=self.random.randrange(x.ndim))

    def matmul(self) -> Value | None:
        x, y = self.pick(ndim=2), self.pick(ndim=2)
        if x is None or y is None:
            return None
        if x.shape[1] != y.shape[0]:
            y = ops.matrix_transpose(x)
        return ops.matmul(x, y)

    def choice(self) -> Value | None:
        x = self.pick()
        y = self.pick(like=x)
        if x is None or y is None:
            return None
        return ops.where(self.random.choice([ops.less, ops.equal])(x, y), x, self.random.choice([x, y]))

    def again(self) -> Value | None:
        """A node that is there already, on the same operands."""
        x = self.random.choice(self.values)
        if isinstance(x.node.op, Input) or not x.node.inputs or x.node.regions or isinstance(x.node.op, Gradient):
            return None
        return x.node.inputs[0].bind(x.node.op, x.node.inputs)[x.index]

    def cast(self) -> Value | None:
        x = self.pick(is_float=False)
        if x is None:
            return None
        return ops.astype(ops.astype(x, t.float16), t.float32) if x.dtype is not t.int64 else ops.astype(x, t.float32)

    def other(self) -> Value | None:
        x = self.pick()
        if x is None or x.ndim == 0 or 0 in x.shape:
            return None
        kinds: list[Callable[[Value], Value]] = [
            lambda v: ops.softmax(v, axis=0),
            lambda v: ops.log_softmax(v, axis=-1),
            lambda v: ops.cumulative_sum(v, axis=0),
            lambda v: ops.take(v, ops.astype(self.inputs[5], t.int32) * 0, axis=0),
            lambda v: ops.pad(v, [(1, 0)] * v.ndim, value=-0.0),
            lambda v: ops.flip(v),
            lambda v: ops.argsort(v, axis=0).bind(e.Cast(t.float32), (ops.argsort(v, axis=0),))[0],
            lambda v: ops.stop_gradient(v),
            lambda v: Alias()(v),
        ]
        return self.random.choice(kinds)(x)

    def fence(self) -> Value | None:
        x, y = self.pick(), self.pick()
        return None if x is None or y is None else self.random.choice(Barrier(2).results(x, y))

    def region(self) -> Value | None:
        x = self.pick()
        if x is None:
            return None
        inner = new_input(x.type)
        forward = ops.tanh(inner) * ops.exp(ops.tanh(inner)) + 1
        if self.random.random() < 0.5:
            return Checkpoint()(x, regions=(Graph.of([inner], [forward]),))
        saved, g = new_input(x.type), new_input(x.type)
        regions = (Graph.of([inner], [forward, inner]), Graph.of([saved, g], [g * saved * 3]))
        return CustomVjp(1).results(x, regions=regions)[0]

    def gradient(self) -> Value | None:
        y = self.pick()
        xs = [x for x in self.random.sample(self.inputs, 3) if x.dtype is t.float32]
        if y is None or not xs:
            return None
        return self.random.choice(Gradient(1).results(y, ops.tanh(y) * 2, *xs))
