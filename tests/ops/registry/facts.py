"""What is known of an op beside its rules: `Facts`, one for each op, and the words that they are written in.

Nothing here looks at the op's own ``eval``, ``vjp`` or ``cost``: facts are what these are held against.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from telegrad.ir import Value
from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ir.types import DType, Type
from telegrad.ir.value import apply
from telegrad.ops.attention import Attention, AttentionGradient
from telegrad.ops.elementwise import Cast, Elementwise
from telegrad.ops.linalg import Matmul
from telegrad.ops.shape import BroadcastTo, Move
from telegrad.ops.slices import Sliced, SliceSet
from telegrad.ops.systems import MatrixOp, System

from tests.ops.checks import Array
from tests.ops.operands import Operand

FLOATS = (t.float64, t.float32, t.float16, t.bfloat16)
WIDE = (t.float64, t.float32)
INTEGERS = (t.int64, t.int32, t.int16, t.int8, t.uint64, t.uint32, t.uint16, t.uint8)
NUMBERS = FLOATS + INTEGERS
ANY = (*NUMBERS, t.bool_)

ALL = tuple(range(16))
"""Every operand, however many there are."""

SPACINGS: Mapping[DType, float] = {t.float64: 8, t.float32: 4, t.float16: 1, t.bfloat16: 1}
"""How far a result may be from the exact one, in spacings of its dtype at the size of the result."""

LONG = 3000
"""More elements than float16 can count."""

Reference = Callable[..., Any]
"""(op, *arrays) -> the result, or a list of them; floating-point arrays come as float64, of the values to be taken."""

Laws = Callable[..., Sequence[tuple[Any, Any]]]
"""(op, results, *arrays) -> pairs that must be equal, for results that more than one answer would do for."""


@dataclass(frozen=True)
class Sample:
    """An op with its attributes, and operands for it.

    ``through`` makes the same op by its public function, with axes counted from the end. ``is_smooth`` says whether
    finite differences mean anything at these operands.
    """

    op: Op
    operands: tuple[Operand, ...] = ()
    through: Callable[..., Value] | None = None
    is_smooth: bool = True

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The operands, the same ones in every run."""
        rng = np.random.default_rng(self.seed)
        return tuple([np.asarray(make(rng)) for make in self.operands])

    @property
    def seed(self) -> int:
        """What the operands are drawn from."""
        return zlib.crc32(repr(self.op).encode())

    def results(self, *operands: Value) -> tuple[Value, ...]:
        """The op's results on these values."""
        if self.through is not None:
            return (self.through(*operands),)
        return apply(self.op, operands)


@dataclass(frozen=True)
class Refusal:
    """What the op must not take; see `refuse`."""

    op: Op
    operands: tuple[Type | Operand, ...]
    error: type[Exception]
    message: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All numeric facts of one op. `KINDS` says which kinds of samples there must be."""

    samples: tuple[Sample, ...]
    refusals: tuple[Refusal, ...]
    reference: Reference | None = None
    laws: Laws | None = None
    """Instead of a reference."""

    dtypes: tuple[DType, ...]
    """What the operands may be whose dtype is free: the floating-point ones, the integers where there are none."""

    spacings: Mapping[DType, float] = field(default_factory=lambda: SPACINGS)
    is_elementwise: bool = False
    """Whether an error is measured against each element, and not against the largest."""

    scale: float = 0.0
    """Errors are not measured against less than this: for results that cancel."""

    differentiable: tuple[int, ...] | Callable[[Any], Sequence[int]]
    """The numbers of the operands with a gradient, if they are floating-point; (op) -> numbers, if attributes say."""

    slope_tolerance: float = 1e-8
    """How well first and second gradients must agree with differences in float64."""

    flops: Callable[..., int]
    """(op, *types) -> operations."""

    moves: Callable[..., int] | None = None
    """(op, *types) -> the fewest bytes that must be read and written, if not those of all operands and results."""

    is_deterministic: bool = True
    without: Mapping[str, str] = field(default_factory=dict[str, str])
    """The kinds of samples that mean nothing for this op, and why."""

    @property
    def name(self) -> str:
        """The op's name."""
        return self.samples[0].op.name if self.samples else ""

    def has_gradient(self, op: Op, number: int) -> bool:
        """Whether this operand has a gradient."""
        return number in (self.differentiable(op) if callable(self.differentiable) else self.differentiable)


# ---- kinds of samples


def _operands(samples: Sequence[Sample]) -> list[Array]:
    return [a for sample in samples for a in sample.arrays]


def _broadcasts(sample: Sample) -> bool:
    if not isinstance(sample.op, Elementwise | Matmul | System | BroadcastTo | SliceSet):
        return False
    cut = 2 if isinstance(sample.op, Matmul | System) else 0
    shapes = [a.shape[: a.ndim - cut] for a in sample.arrays]
    shapes += [sample.op.shape] if isinstance(sample.op, BroadcastTo) else []
    return len(set(shapes)) > 1


def _has_ties(sample: Sample) -> bool:
    if not sample.arrays or (isinstance(sample.op, Elementwise | Cast) and len(sample.arrays) == 1):
        return False
    first, *rest = [a for a in sample.arrays if a.dtype != bool] or [np.zeros(0)]
    alone = not isinstance(sample.op, Elementwise) and np.unique(first).size < first.size
    return alone or any(a.dtype == first.dtype and a.shape == first.shape and np.any(a == first) for a in rest)


def _is_asymmetric(sample: Sample) -> bool:
    if not isinstance(sample.op, MatrixOp | Matmul | Attention | AttentionGradient | Move | Sliced):
        return False
    square = [a for a in sample.arrays if a.ndim > 1 and a.shape[-1] == a.shape[-2]]
    return any(not np.array_equal(a, np.swapaxes(a, -1, -2)) for a in square)


KINDS: Mapping[str, Callable[[Sequence[Sample]], bool]] = {
    "empty": lambda samples: any(a.size == 0 for a in _operands(samples)),
    "scalar": lambda samples: any(a.ndim == 0 for a in _operands(samples)),
    "broadcast": lambda samples: any(map(_broadcasts, samples)),
    "strided": lambda samples: any(a.size > 1 for a in _operands(samples)),  # every sample is also run on views
    "negative axes": lambda samples: any(sample.through is not None for sample in samples),
    "keepdims": lambda samples: {getattr(sample.op, "keepdims", None) for sample in samples} == {True, False},
    "ties": lambda samples: any(map(_has_ties, samples)),
    "asymmetric": lambda samples: any(map(_is_asymmetric, samples)),
    "long": lambda samples: any(max(a.shape, default=0) >= LONG for a in _operands(samples)),
}
"""The kinds of samples, and how to tell that one is there. An op has each, or says why it means nothing."""

NO_AXES = {"negative axes": "it has no axis", "keepdims": "it reduces nothing"}
NO_KEEPDIMS = {"keepdims": "it reduces nothing"}
NO_MATRICES = {"asymmetric": "its operands are no matrices"}
NO_SUMS = {"long": "it adds up nothing"}
NO_BROADCAST = {"broadcast": "its operands have fixed shapes"}
NO_TIES = {"ties": "elements are not compared with each other"}
NEVER_SCALAR = {"scalar": "it needs an axis"}
ONE_OPERAND = {"broadcast": "there is one operand"}
MOVES = {**NO_KEEPDIMS, **NO_SUMS, **NO_TIES, **NO_BROADCAST}
NO_OPERANDS = dict.fromkeys(KINDS, "it has no operands")
A_KEY = {kind: "its operand is a key" for kind in KINDS if kind != "strided"}


# ---- references and costs


def scalars(f: Callable[..., Any]) -> Reference:
    """The reference that applies a function of Python numbers to each element, after broadcasting."""

    def reference(op: Op, *arrays: Array) -> Array:
        lines = np.broadcast_arrays(*arrays)
        found = np.empty(lines[0].shape, object)
        found.reshape(-1)[:] = [f(*each) for each in zip(*[x.reshape(-1).tolist() for x in lines], strict=True)]
        return found

    return reference


def per_result(op: Op, *types: Type) -> int:
    """One operation for each element of the broadcast operands."""
    return math.prod(np.broadcast_shapes(*[x.shape for x in types]))


def per_operand(op: Op, *types: Type) -> int:
    """One operation for each element of the first operand."""
    return math.prod(types[0].shape)


def nothing(op: Op, *types: Type) -> int:
    """No operations: elements are only moved; or no bytes: the result is a view."""
    return 0


# ---- refusals


def refuse(error: type[Exception], message: str, op: Op, *operands: Type | Operand) -> Refusal:
    """Operands that the op does not take: types, or arrays where it shows when it runs. ``message`` is a pattern."""
    return Refusal(op, operands, error, message)


def ty(*sizes: int, dtype: DType = t.float32) -> Type:
    """A type, float32 if nothing else is said."""
    return Type(sizes, dtype)
