"""A scalar expression printed as C or CUDA: an op's own ``eval``, run on terms instead of arrays.

The writer is a `telegrad.ir.xp.ScalarModule`: each word becomes one statement, and its result the name of a local
variable. What comes from a graph goes in as numbers and types alone, so no text of a user's reaches a source.
"""

from __future__ import annotations

import math
import struct
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
from telegrad_server.compiler.dialect import Dialect

C_TYPES = {t.float32: "float", t.bool_: "unsigned char", t.int32: "int", t.int64: "long long"}
"""The element types of arrays that kernels in C read and write."""

C = Dialect(C_TYPES, FLOAT_WORDS, FLOAT_PREDICATES, infinity="__builtin_inff()", nan='__builtin_nanf("")')


class Term(NamedTuple):
    """A local variable, or a literal; ``value`` is the number where it is known."""

    text: str
    dtype: DType
    value: Number | None = None


class Unprintable(Exception):
    """An expression has no form in a dialect. Never leaves the compiler."""


class Writer:
    """Prints words as statements. ``lines`` are those so far; ``words`` the words."""

    def __init__(self, dialect: Dialect = C) -> None:
        self.lines: list[str] = []
        self.words: set[str] = set()
        self.dialect = dialect
        self._count = 0

    def local(self, text: str, dtype: DType, *, is_rounded: bool = True) -> Term:
        """A new local variable with the value of an expression, rounded to its type unless it is so already."""
        self._count += 1
        name = f"t{self._count}"
        rounded = self.dialect.narrow.get(dtype) if not is_rounded else None
        text = text if rounded is None else f"{rounded}({text})"
        self.lines.append(f"{self.dialect.local_type(dtype)} {name} = {text};")
        return Term(name, dtype)

    def local_in(self, lines: list[str], text: str, dtype: DType) -> Term:
        """A new local variable among other lines than those that are being written."""
        before, self.lines = self.lines, lines
        term = self.local(text, dtype)
        self.lines = before
        return term

    def literal(self, number: Number, like: Term) -> Term:
        """A number in the dtype of a term."""
        return constant(number, like.dtype, self.dialect)

    def astype(self, x: Term, dtype: DType) -> Term:
        """x in another dtype."""
        if dtype is x.dtype:
            return x
        if dtype not in self.dialect.types or (self._is_float(x.dtype) and not (dtype.is_float or dtype is t.bool_)):
            raise Unprintable  # a float beyond the integer's range has no meaning in C
        if dtype is t.bool_:
            return self.local(f"{x.text} != 0", dtype)
        return self.local(f"({self.dialect.local_type(dtype)}){x.text}", dtype, is_rounded=False)

    def where(self, condition: Term, x: Term, y: Term) -> Term:
        """x where the condition holds, else y."""
        return self.local(f"{condition.text} ? {x.text} : {y.text}", x.dtype)

    def power(self, x: Term, y: Term) -> Term:
        """x to the power of one half, or of minus one half; there are no others."""
        word = {0.5: "word_root", -0.5: "word_inverse_root"}.get(y.value if y.value is not None else math.nan)
        if word is None or not self._is_float(x.dtype):
            raise Unprintable
        self.words.add("power")
        return self.local(f"{word}({x.text})", x.dtype, is_rounded=False)

    def _is_float(self, dtype: DType) -> bool:
        return dtype is t.float32 or dtype in self.dialect.narrow

    def __getattr__(self, word: str) -> Any:
        if word not in SCALAR_LANGUAGE:
            raise Unprintable
        return lambda *terms: self._word(word, terms)

    def _word(self, word: str, terms: Sequence[Term]) -> Term:
        self.words.add(word)
        dtype = terms[0].dtype
        pattern, result = PREDICATES.get(word), t.bool_
        if self._is_float(dtype):
            pattern = pattern or self.dialect.float_predicates.get(word)
            if pattern is None:
                pattern, result = self.dialect.float_words.get(word), dtype
        elif dtype is t.bool_:
            pattern = pattern or LOGIC.get(word)
        if pattern is None:
            raise Unprintable
        return self.local(pattern.format(*[term.text for term in terms]), result, is_rounded=False)


def constant(number: Number, dtype: DType, dialect: Dialect = C) -> Term:
    """A literal."""
    if dtype is t.float32 or dtype in dialect.narrow:
        x = rounded(float(number), dtype)
        text = dialect.nan if math.isnan(x) else f"{x.hex()}f"
        if math.isinf(x):
            text = dialect.infinity if x > 0 else f"(-{dialect.infinity})"
        return Term(f"({text})", dtype, x)
    if dtype not in dialect.types:
        raise Unprintable
    if dtype is t.int64 and number == -(2**63):
        return Term("(-9223372036854775807LL - 1)", dtype, number)
    return Term(f"({int(number)}{'LL' if dtype is t.int64 else ''})", dtype, number)


def rounded(x: float, dtype: DType) -> float:
    """The nearest number that a float type has."""
    code = "e" if dtype is t.float16 else "f"
    try:
        near: float = struct.unpack(code, struct.pack(code, x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)
    if dtype is not t.bfloat16 or not math.isfinite(near):
        return near
    (bits,) = struct.unpack("I", struct.pack("f", near))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return struct.unpack("f", struct.pack("I", bits))[0]


def printed(op: Op, writer: Writer, terms: Sequence[Term]) -> Term:
    """The term for an elementwise op's result. Raises Unprintable."""
    return op.eval(writer, *terms)


@lru_cache(maxsize=1 << 14)
def _words(op: Op, dtypes: tuple[DType, ...], exponent: float | None, dialect: Dialect) -> frozenset[str] | None:
    writer = Writer(dialect)
    terms = [Term(f"x{i}", dtype) for i, dtype in enumerate(dtypes)]
    if exponent is not None:
        terms[1] = constant(exponent, dtypes[1], dialect)
    try:
        result = printed(op, writer, terms)
    except Unprintable:
        return None
    return frozenset(writer.words) if result.dtype in dialect.types else None


def words(op: Op, inputs: Sequence[Any], dialect: Dialect = C) -> frozenset[str] | None:
    """The words of an elementwise op on these values, None if it has no form in the dialect."""
    if not isinstance(op, Elementwise | Cast):
        return None
    types: list[Type] = [v.type for v in inputs]
    if any(type.dtype not in dialect.types for type in types):
        return None
    exponent = None
    if isinstance(op, Power):
        found = inputs[1].node.op
        if not isinstance(found, Constant):
            return None
        exponent = float(found.value)
    return _words(op, tuple([type.dtype for type in types]), exponent, dialect)


def is_unlike_numpy(found: frozenset[str]) -> bool:
    """Whether an expression of these words has other bits in C than in NumPy."""
    return not found.isdisjoint(UNLIKE_NUMPY) or "power" in found
