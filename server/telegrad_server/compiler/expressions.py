"""A scalar expression printed as C: an op's own ``eval``, run on terms instead of arrays.

The writer is a `telegrad.ir.xp.ScalarModule`: each word becomes one statement, and its result the name of a local
variable. What comes from a graph goes in as numbers and types alone, so no text of a user's reaches a source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from telegrad.ir import types as t
from telegrad.ir.op import Op
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Number
from telegrad.ir.xp import SCALAR_LANGUAGE
from telegrad.ops.elementwise import Cast, Constant, Elementwise, Power

from telegrad_server.compiler.c_words import FLOAT_PREDICATES, FLOAT_WORDS, LOGIC, PREDICATES, UNLIKE_NUMPY

C_TYPES = {t.float32: "float", t.bool_: "unsigned char", t.int32: "int", t.int64: "long long"}
"""The element types of arrays that kernels read and write."""


class Term(NamedTuple):
    """A local variable, or a literal; ``value`` is the number where it is known."""

    text: str
    dtype: DType
    value: Number | None = None


class Unprintable(Exception):
    """An expression has no C form. Never leaves the compiler."""


class Writer:
    """Prints words as statements. ``lines`` are those so far; ``words`` the words."""

    def __init__(self, prefix: str = "t") -> None:
        self.lines: list[str] = []
        self.words: set[str] = set()
        self._prefix = prefix
        self._count = 0

    def local(self, text: str, dtype: DType) -> Term:
        """A new local variable with the value of a C expression."""
        self._count += 1
        name = f"{self._prefix}{self._count}"
        self.lines.append(f"{local_type(dtype)} {name} = {text};")
        return Term(name, dtype)

    def literal(self, number: Number, like: Term) -> Term:
        """A number in the dtype of a term."""
        return constant(number, like.dtype)

    def astype(self, x: Term, dtype: DType) -> Term:
        """x in another dtype."""
        if dtype is x.dtype:
            return x
        if dtype not in C_TYPES or (x.dtype is t.float32 and dtype is not t.bool_):
            raise Unprintable  # a float beyond the integer's range has no meaning in C
        return self.local(f"{x.text} != 0" if dtype is t.bool_ else f"({local_type(dtype)}){x.text}", dtype)

    def where(self, condition: Term, x: Term, y: Term) -> Term:
        """x where the condition holds, else y."""
        return self.local(f"{condition.text} ? {x.text} : {y.text}", x.dtype)

    def power(self, x: Term, y: Term) -> Term:
        """x to the power of one half, or of minus one half; there are no others."""
        word = {0.5: "word_root", -0.5: "word_inverse_root"}.get(y.value if y.value is not None else math.nan)
        if word is None or x.dtype is not t.float32:
            raise Unprintable
        self.words.add("power")
        return self.local(f"{word}({x.text})", x.dtype)

    def __getattr__(self, word: str) -> Any:
        if word not in SCALAR_LANGUAGE:
            raise Unprintable
        return lambda *terms: self._word(word, terms)

    def _word(self, word: str, terms: Sequence[Term]) -> Term:
        self.words.add(word)
        dtype = terms[0].dtype
        pattern, result = PREDICATES.get(word), t.bool_
        if dtype is t.float32:
            pattern = pattern or FLOAT_PREDICATES.get(word)
            if pattern is None:
                pattern, result = FLOAT_WORDS.get(word), t.float32
        elif dtype is t.bool_:
            pattern = pattern or LOGIC.get(word)
        if pattern is None:
            raise Unprintable
        return self.local(pattern.format(*[term.text for term in terms]), result)


def local_type(dtype: DType) -> str:
    """The C type of a local variable: truths are ints, as comparisons are."""
    return "int" if dtype is t.bool_ else C_TYPES[dtype]


def constant(number: Number, dtype: DType) -> Term:
    """A literal."""
    if dtype is t.float32:
        x = _float32(float(number))
        text = '__builtin_nanf("")' if math.isnan(x) else f"{x.hex()}f"
        if math.isinf(x):
            text = "__builtin_inff()" if x > 0 else "(-__builtin_inff())"
        return Term(f"({text})", dtype, x)
    if dtype not in C_TYPES:
        raise Unprintable
    if dtype is t.int64 and number == -(2**63):
        return Term("(-9223372036854775807LL - 1)", dtype, number)
    return Term(f"({int(number)}{'LL' if dtype is t.int64 else ''})", dtype, number)


def _float32(x: float) -> float:
    """The nearest number that float32 has."""
    import struct

    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def printed(op: Op, writer: Writer, terms: Sequence[Term]) -> Term:
    """The term for an elementwise op's result. Raises Unprintable."""
    return op.eval(writer, *terms)


@lru_cache(maxsize=1 << 14)
def _words(op: Op, dtypes: tuple[DType, ...], exponent: float | None) -> frozenset[str] | None:
    writer = Writer()
    terms = [Term(f"x{i}", dtype) for i, dtype in enumerate(dtypes)]
    if exponent is not None:
        terms[1] = constant(exponent, dtypes[1])
    try:
        result = printed(op, writer, terms)
    except Unprintable:
        return None
    return frozenset(writer.words) if result.dtype in C_TYPES else None


def words(op: Op, inputs: Sequence[Any]) -> frozenset[str] | None:
    """The words of an elementwise op on these values, None if it has no C form."""
    if not isinstance(op, Elementwise | Cast):
        return None
    types: list[Type] = [v.type for v in inputs]
    if any(type.dtype not in C_TYPES for type in types):
        return None
    exponent = None
    if isinstance(op, Power):
        found = inputs[1].node.op
        if not isinstance(found, Constant):
            return None
        exponent = float(found.value)
    return _words(op, tuple([type.dtype for type in types]), exponent)


def is_unlike_numpy(found: frozenset[str]) -> bool:
    """Whether an expression of these words has other bits in C than in NumPy."""
    return not found.isdisjoint(UNLIKE_NUMPY) or "power" in found
