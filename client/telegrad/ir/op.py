"""Op: everything there is to know about an operation, on one frozen dataclass; and the registry of all.

Fields are attributes; methods are rules:

* ``infer(*types) -> Type | tuple[Type, ...]``: what comes out, or a sentence on why not;
* ``vjp(g, out, *inputs) -> tuple[Value | None, ...]``: the gradient for each input, in graph values,
  of the *broadcast* shape (`telegrad.autodiff` undoes broadcasting); None where there is none. For an op of
  several outputs ``g`` and ``out`` are tuples. Whatever the caller does not need is dead code;
* ``eval(xp, *arrays)``: the result on the array module of the executor;
* ``cost(*types) -> Cost``: bytes and floating-point operations from the types alone.

The rules differ in arity from op to op, hence ``Callable[..., X]`` class variables instead of abstract
methods. The name on the wire is the snake case of the class and never changes its meaning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from telegrad.errors import GraphError, UnknownOp
from telegrad.ir.types import DType, Type

if TYPE_CHECKING:
    from telegrad.ir.graph import Graph
    from telegrad.ir.value import V

REGISTRY: dict[str, type[Op]] = {}
"""Every op by its name on the wire."""


class Cost(NamedTuple):
    """What a node costs: floating-point operations, and bytes read and written."""

    flops: int
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Op:
    """The contract of an operation. ``abstract=True`` is for a family.

    Subclass as ``@dataclass(frozen=True)``; a class without fields of its own inherits all that this would make.
    """

    name: ClassVar[str] = ""
    infer: ClassVar[Callable[..., Type | tuple[Type, ...]]]
    vjp: ClassVar[Callable[..., tuple[Any, ...]]]
    eval: ClassVar[Callable[..., Any]]

    reference: ClassVar[str] = ""
    """Where the formula comes from, if it is not plain calculus."""

    is_view: ClassVar[bool] = False
    """Whether ``eval`` may return a view of its first input."""

    uses_blas: ClassVar[bool] = False
    """Whether ``eval`` calls BLAS, which then runs on one thread: the bits would depend on how many there are."""

    expands: ClassVar[bool] = False
    """Whether the compiler puts the reference form, ``in_primitives``, in the op's place, once gradients are known: its
    rule is joint, and no executor has a kernel for it that would beat a plan of the parts. It needs no ``eval``."""

    reduces: ClassVar[bool] = False
    """Whether it meets its like on the other replicas of a data-parallel function, so that all run it in one order."""

    is_pure: ClassVar[bool] = True
    """Whether equal operands give equal results, so that two equal nodes may become one."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        known = REGISTRY.get(cls.name)
        # dataclass(slots=True) and module reloads define the same class again; anything else is a clash
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise TypeError(f"two ops are called {cls.name}: {known} and {cls}")
        REGISTRY[cls.name] = cls

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An op without fields exists once: large graphs hold many."""
        only = _only.get(cls)
        if only is None:
            only = object.__new__(cls)
            if not dataclasses.fields(cls):  # type: ignore[arg-type]
                _only[cls] = only
        return only  # type: ignore[return-value]

    def __call__(self, *inputs: V, regions: tuple[Graph, ...] = ()) -> V:
        """The one output of this op on values or tensors."""
        return inputs[0].bind(self, inputs, regions)[0]

    def results(self, *inputs: V, regions: tuple[Graph, ...] = ()) -> tuple[V, ...]:
        """All outputs of this op on values or tensors."""
        return inputs[0].bind(self, inputs, regions)

    def cost(self, *types: Type) -> Cost:
        """By default one operation for each element of the results."""
        results = result_types(self, types, ())
        moved = sum(t.nbytes for t in types) + sum(t.nbytes for t in results)
        return Cost(sum(t.size for t in results), moved)

    def working_bytes(self, *types: Type) -> int:
        """What ``eval`` may need beside operands and results, if attributes decide it and it can be large."""
        return 0

    def attributes(self) -> dict[str, Any]:
        """The fields by name, without those that hold their default: what goes on the wire."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING or value != field.default or type(value) is not type(field.default):
                found[field.name] = value
        return found


_only: dict[type[Op], Op] = {}


def identity(op: Op) -> Hashable:
    """A key that is equal for ops that mean the same to the bit. == is not enough: it takes -0.0 for 0.0."""
    cls = type(op)
    kind = _identities.get(cls)
    if kind is None:
        kind = _identities[cls] = _identity_of(cls)
    return kind(op)


_identities: dict[type[Op], Callable[[Op], Hashable]] = {}


def _identity_of(cls: type[Op]) -> Callable[[Op], Hashable]:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    if not fields:
        return type
    if any("Number" in str(f.type) or "float" in str(f.type) for f in fields):
        return repr
    return lambda op: op


@lru_cache(maxsize=1 << 16)
def _inferred(op: Op, types: tuple[Type, ...]) -> tuple[Type, ...]:
    result = op.infer(*types)
    return (result,) if isinstance(result, Type) else result


def result_types(op: Op, types: tuple[Type, ...], regions: tuple[Graph, ...]) -> tuple[Type, ...]:
    """The types that come out of ``op``; raises GraphError if the operands or regions do not fit."""
    try:
        if not regions:
            return _inferred(op, types)
        result = op.infer(*types, regions=regions)
        return (result,) if isinstance(result, Type) else result
    except TypeError as error:
        if isinstance(error, GraphError):
            raise
        given = f"{len(types)} operands" + (f" and {len(regions)} regions" if regions else "")
        raise GraphError(f"{op.name} does not take {given}", reason="GRAPH_ARITY") from error


# One checker per annotation that an attribute may have. Values come from the network: nothing is coerced.
def _is_int(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_ints(value: object) -> bool:
    return type(value) is tuple and len(value) <= 4096 and all(map(_is_int, value))


def _is_finite(value: object) -> bool:
    return type(value) is float and value - value == 0.0


_CHECKS: dict[str, Callable[[object], bool]] = {
    "int": _is_int,
    "int | None": lambda v: v is None or _is_int(v),
    "float": _is_finite,
    "float | None": lambda v: v is None or _is_finite(v),
    "Number": lambda v: type(v) is bool or type(v) is float or (type(v) is int and -(2**63) <= v < 2**64),
    "bool": lambda v: type(v) is bool,
    "str": lambda v: type(v) is str and len(v) <= 256,
    "DType": lambda v: isinstance(v, DType),
    "Shape": _is_ints,
    "tuple[int, ...]": _is_ints,
    "tuple[int, ...] | None": lambda v: v is None or _is_ints(v),
    "tuple[int | None, ...]": lambda v: type(v) is tuple and len(v) <= 4096 and all(x is None or _is_int(x) for x in v),
    "tuple[tuple[int, int], ...]": lambda v: (
        type(v) is tuple and len(v) <= 64 and all(_is_ints(p) and len(p) == 2 for p in v)
    ),
}


def make_op(name: str, attributes: dict[str, Any]) -> Op:
    """The op of this name with these attributes, every one checked against the field's annotation.

    Raises UnknownOp for a name that is not registered, GraphError for a missing, unknown or ill-typed attribute.
    """
    cls = REGISTRY.get(name)
    if cls is None:
        raise UnknownOp(f"op {name!r} is not known here", op=name)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in attributes.items():
        field = fields.get(key)
        if field is None:
            raise GraphError(f"{name} has no attribute {key!r}", reason="ATTRIBUTE_UNKNOWN", op=name)
        if not _CHECKS[str(field.type)](value):
            raise GraphError(
                f"{name}: attribute {key} must be {field.type} and finite, got {value!r:.80}",
                reason="ATTRIBUTE_INVALID",
                op=name,
            )
    for key, field in fields.items():
        if key not in attributes and field.default is dataclasses.MISSING:
            raise GraphError(f"{name}: attribute {key} is missing", reason="ATTRIBUTE_MISSING", op=name)
    return cls(**attributes)


def check_annotations(cls: type[Op]) -> None:
    """Raise TypeError if a field of the op has an annotation that the wire cannot check."""
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if str(field.type) not in _CHECKS:
            raise TypeError(f"{cls.__name__}.{field.name}: no wire check for annotation {field.type!r}")
