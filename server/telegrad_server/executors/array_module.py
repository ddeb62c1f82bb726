"""The array module that ``op.eval`` receives: NumPy's names, with what NumPy leaves open decided.

Element types come as telegrad's DTypes. Sums, products and running sums keep the operand's dtype; those of
16-bit floats are computed in float32 and rounded once. Indices are checked before anything is written, and
repeated ones take effect in their order. One implementation serves every library with NumPy's interface;
`telegrad_server.executors.cupy_module` overrides what a GPU does differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from telegrad.errors import ExecutionError, IndexRange
from telegrad.ir import types as t
from telegrad.ir.types import DType, Shape
from telegrad.ir.value import Number
from telegrad.wire.arrays import from_numpy_dtype, numpy_dtype

from telegrad_server.executors import attention, convolution, matrix_exp, philox, special, triangular
from telegrad_server.executors.blas import OpenBlas, openblas

Array = Any
"""An array of the module's library."""


class LibraryModule:
    """The array module over ``lib``, which is NumPy or has its interface."""

    name = ""
    is_host = False  # arrays are in this process's memory, and a call returns when its result is there
    blas: OpenBlas | None = None
    philox_chunk = 1 << 40  # blocks of random numbers made at once
    gathered_elements = 1 << 22  # of a product with a sparse matrix, gathered at once

    def __init__(self, lib: Any) -> None:
        self.lib = lib
        self._bfloat16 = numpy_dtype(t.bfloat16)
        self._float16 = numpy_dtype(t.float16)
        # the scalar language: these are ufuncs, which an executor may also call with an out array
        self.add = lib.add
        self.subtract = lib.subtract
        self.multiply = lib.multiply
        self.divide = lib.divide
        self.remainder = lib.remainder
        self.power = lib.power
        self.negative = lib.negative
        self.abs = lib.absolute
        self.sign = lib.sign
        self.reciprocal = lib.reciprocal
        self.square = lib.square
        self.exp = lib.exp
        self.expm1 = lib.expm1
        self.log = lib.log
        self.log1p = lib.log1p
        self.log2 = lib.log2
        self.log10 = lib.log10
        self.sqrt = lib.sqrt
        self.sin = lib.sin
        self.cos = lib.cos
        self.tan = lib.tan
        self.asin = lib.arcsin
        self.acos = lib.arccos
        self.atan = lib.arctan
        self.sinh = lib.sinh
        self.cosh = lib.cosh
        self.tanh = lib.tanh
        self.asinh = lib.arcsinh
        self.acosh = lib.arccosh
        self.atanh = lib.arctanh
        self.atan2 = lib.arctan2
        self.hypot = lib.hypot
        self.logaddexp = lib.logaddexp
        self.minimum = lib.minimum
        self.maximum = lib.maximum
        self.isnan = lib.isnan
        self.isinf = lib.isinf
        self.isfinite = lib.isfinite
        self.signbit = lib.signbit
        self.copysign = lib.copysign
        self.nextafter = lib.nextafter
        self.equal = lib.equal
        self.not_equal = lib.not_equal
        self.less = lib.less
        self.less_equal = lib.less_equal
        self.greater = lib.greater
        self.greater_equal = lib.greater_equal
        self.logical_and = lib.logical_and
        self.logical_or = lib.logical_or
        self.logical_xor = lib.logical_xor
        self.logical_not = lib.logical_not
        self.bitwise_and = lib.bitwise_and
        self.bitwise_or = lib.bitwise_or
        self.bitwise_xor = lib.bitwise_xor
        self.bitwise_invert = lib.invert
        self.bitwise_left_shift = lib.left_shift
        self.bitwise_right_shift = lib.right_shift
        self.where = lib.where
        # moving elements
        self.broadcast_to = lib.broadcast_to
        self.transpose = lib.transpose
        self.flip = lib.flip
        self.concatenate = lib.concatenate
        self.zeros_like = lib.zeros_like
        self.ones_like = lib.ones_like

    # ---- element types and creation

    def dtype_of(self, x: Array) -> DType:
        """The element type of an array."""
        return from_numpy_dtype(x.dtype)

    def astype(self, x: Array, dtype: DType) -> Array:
        """x in another element type: rounded to nearest even, or truncated towards zero."""
        return x.astype(numpy_dtype(dtype))

    def full(self, shape: Shape, value: Number, dtype: DType) -> Array:
        """An array filled with one number."""
        return self.lib.full(shape, value, numpy_dtype(dtype))

    def zeros(self, shape: Shape, dtype: DType) -> Array:
        """An array of zeros."""
        return self.lib.zeros(shape, numpy_dtype(dtype))

    def literal(self, number: Number, like: Array) -> Array:
        """A number in the dtype of an array."""
        return like.dtype.type(number)

    def arange(self, n: int, dtype: DType) -> Array:
        """0, 1, …, n - 1."""
        return self.lib.arange(n).astype(numpy_dtype(dtype))

    # ---- the scalar language where it is no ufunc of the library

    def _on_numbers(self, function: Any, x: Array) -> Array:
        return x if x.dtype.kind in "iu" else function(x)

    def floor_divide(self, x: Array, y: Array) -> Array:
        """floor(x / y); the quotient itself where either is infinite, as the array API has it and NumPy not."""
        result = self.lib.floor_divide(x, y)
        if result.dtype.kind in "iu":
            return result
        return self.lib.where(self.lib.isinf(x) | self.lib.isinf(y), self.lib.divide(x, y), result)

    def floor(self, x: Array) -> Array:
        """The largest integer not above x."""
        return self._on_numbers(self.lib.floor, x)

    def ceil(self, x: Array) -> Array:
        """The smallest integer not below x."""
        return self._on_numbers(self.lib.ceil, x)

    def trunc(self, x: Array) -> Array:
        """The integer nearest to x towards zero."""
        return self._on_numbers(self.lib.trunc, x)

    def round(self, x: Array) -> Array:
        """The nearest integer, ties to even."""
        return self._on_numbers(self.lib.rint, x)

    def _special(self, name: str, x: Array) -> Array:
        raise NotImplementedError(name)

    def erf(self, x: Array) -> Array:
        """The error function."""
        return self._special("erf", x)

    def erfinv(self, x: Array) -> Array:
        """The inverse of erf."""
        return self._special("erfinv", x)

    def lgamma(self, x: Array) -> Array:
        """The logarithm of the absolute value of the gamma function."""
        return self._special("lgamma", x)

    def digamma(self, x: Array) -> Array:
        """The derivative of lgamma."""
        return self._special("digamma", x)

    # ---- reductions

    def _is_16_bit_float(self, x: Array) -> bool:
        return x.dtype == self._float16 or x.dtype == self._bfloat16

    def _accumulate(self, function: Any, x: Array, axis: Any, **options: Any) -> Array:
        if self._is_16_bit_float(x):
            return function(x, axis=axis, dtype=np.float32, **options).astype(x.dtype)
        return function(x, axis=axis, dtype=x.dtype, **options)

    def sum(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """The sum over axes, in x's dtype."""
        return self._accumulate(self.lib.sum, x, axis, keepdims=keepdims)

    def prod(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """The product over axes, in x's dtype."""
        return self._accumulate(self.lib.prod, x, axis, keepdims=keepdims)

    def max(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """The largest element over axes; NaN if there is one."""
        return self.lib.max(x, axis=axis, keepdims=keepdims)

    def min(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """The smallest element over axes; NaN if there is one."""
        return self.lib.min(x, axis=axis, keepdims=keepdims)

    def all(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """Whether all booleans over axes are true."""
        return self.lib.all(x, axis=axis, keepdims=keepdims)

    def any(self, x: Array, *, axis: tuple[int, ...], keepdims: bool = False) -> Array:
        """Whether any boolean over axes is true."""
        return self.lib.any(x, axis=axis, keepdims=keepdims)

    def argmax(self, x: Array, *, axis: int) -> Array:
        """The position of the first largest element, or of the first NaN, as int64."""
        return self.lib.argmax(x, axis=axis)

    def argmin(self, x: Array, *, axis: int) -> Array:
        """The position of the first smallest element, or of the first NaN, as int64."""
        return self.lib.argmin(x, axis=axis)

    def cumsum(self, x: Array, *, axis: int) -> Array:
        """The sum of the elements up to each along an axis, in x's dtype."""
        return self._accumulate(self.lib.cumsum, x, axis)

    def cumprod(self, x: Array, *, axis: int) -> Array:
        """The product of the elements up to each along an axis, in x's dtype."""
        return self._accumulate(self.lib.cumprod, x, axis)

    def argsort(self, x: Array, *, axis: int, descending: bool = False) -> Array:
        """The positions that sort x, as int64: equal elements keep their order, NaN comes last."""
        if self._is_16_bit_float(x):
            x = x.astype(np.float32)  # bfloat16 does not know how to sort NaN
        if descending:  # of opposite keys, so that equal elements keep their order; ~x is -x - 1 and never overflows
            x = self.lib.invert(x) if x.dtype.kind in "biu" else self.lib.negative(x)
        return self.lib.argsort(x, axis=axis, kind="stable")

    def searchsorted(self, line: Array, x: Array, *, right: bool) -> Array:
        """How many elements of the sorted line stand before each of x, as int64. NaN stands behind all numbers."""
        if self._is_16_bit_float(x):
            line, x = line.astype(np.float32), x.astype(np.float32)
        return self.lib.searchsorted(line, x, side="right" if right else "left").astype(np.int64)

    # ---- products of matrices

    def matmul(self, x: Array, y: Array) -> Array:
        """The matrix product of stacks of matrices; 16-bit floats are multiplied and summed in float32."""
        if self._is_16_bit_float(x):
            return self.lib.matmul(x.astype(np.float32), y.astype(np.float32)).astype(x.dtype)
        return self.lib.matmul(x, y)

    def attention(self, q: Array, k: Array, v: Array, bias: Array | None, **how: Any) -> tuple[Array, Array]:
        """See `attention.attention`; 16-bit floats are multiplied and summed in float32."""
        if not self._is_16_bit_float(q):
            return attention.attention(self.lib, q, k, v, bias, **how)
        wide = [None if x is None else x.astype(np.float32) for x in (q, k, v, bias)]
        out, total = attention.attention(self.lib, *wide, **how)
        return out.astype(q.dtype), total

    def attention_gradient(
        self, g: Array, q: Array, k: Array, v: Array, total: Array, row: Array, bias: Array | None, **how: Any
    ) -> tuple[Array, Array, Array]:
        """See `attention.attention_gradient`."""
        return attention.attention_gradient(self.lib, g, q, k, v, total, row, bias, **how)

    # ---- windows

    def _in_float32(self, function: Any, x: Array, y: Array, geometry: Any) -> Array:
        if self._is_16_bit_float(x):
            return function(self.lib, x.astype(np.float32), y.astype(np.float32), **geometry).astype(x.dtype)
        return function(self.lib, x, y, **geometry)

    def convolution(self, x: Array, weight: Array, **geometry: Any) -> Array:
        """See `convolution.convolution`; 16-bit floats are multiplied and summed in float32."""
        return self._in_float32(convolution.convolution, x, weight, geometry)

    def convolution_input(self, y: Array, weight: Array, **geometry: Any) -> Array:
        """See `convolution.convolution_input`; 16-bit floats are multiplied and summed in float32."""
        return self._in_float32(convolution.convolution_input, y, weight, geometry)

    def convolution_weight(self, x: Array, y: Array, **geometry: Any) -> Array:
        """See `convolution.convolution_weight`; 16-bit floats are multiplied and summed in float32."""
        return self._in_float32(convolution.convolution_weight, x, y, geometry)

    def window_argmax(self, x: Array, **geometry: Any) -> Array:
        """See `convolution.window_argmax`."""
        return convolution.window_argmax(self.lib, x.astype(np.float32) if self._is_16_bit_float(x) else x, **geometry)

    # ---- stacks of matrices

    def _decomposed(self, failure: str, function: Any, *arrays: Array, **options: Any) -> Any:
        """What the library's function gives; ExecutionError with this sentence if a matrix has no result."""
        try:
            return function(*arrays, **options)
        except np.linalg.LinAlgError:
            raise ExecutionError(failure) from None

    def cholesky(self, x: Array) -> Array:
        """The lower factor, from the lower triangle."""
        return self._decomposed("a matrix is not positive definite", self.lib.linalg.cholesky, x)

    def qr(self, x: Array, complete: bool) -> tuple[Array, Array]:
        """Q and R, reduced or complete."""
        return self._decomposed(_DIVERGED, self.lib.linalg.qr, x, mode="complete" if complete else "reduced")

    def eigh(self, x: Array) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and eigenvectors, from the lower triangle."""
        return self._decomposed(_DIVERGED, self.lib.linalg.eigh, x)

    def eigvalsh(self, x: Array) -> Array:
        """Eigenvalues, ascending, from the lower triangle."""
        return self._decomposed(_DIVERGED, self.lib.linalg.eigvalsh, x)

    def svd(self, x: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
        """U, the singular values, descending, and the transpose of V."""
        return self._decomposed(_DIVERGED, self.lib.linalg.svd, x, full_matrices=full_matrices)

    def svdvals(self, x: Array) -> Array:
        """The singular values, descending."""
        return self._decomposed(_DIVERGED, self.lib.linalg.svd, x, compute_uv=False)

    def solve(self, x: Array, y: Array) -> Array:
        """z with x z = y for matrices y; the leading axes broadcast."""
        return self._decomposed(_SINGULAR, self.lib.linalg.solve, x, y)

    def triangular_solve(self, x: Array, y: Array, *, lower: bool, transposed: bool, unit: bool) -> Array:
        """z with x z = y or x^T z = y for triangular x; the leading axes broadcast."""
        how = {"lower": lower, "transposed": transposed, "unit": unit}
        return self._decomposed(_SINGULAR, triangular.substitute, self.lib, x, y, **how)

    def inv(self, x: Array) -> Array:
        """The inverse."""
        return self._decomposed(_SINGULAR, self.lib.linalg.inv, x)

    def det(self, x: Array) -> Array:
        """The determinant."""
        return self.lib.linalg.det(x)

    def slogdet(self, x: Array) -> tuple[Array, Array]:
        """The sign of the determinant and the logarithm of its absolute value."""
        return self.lib.linalg.slogdet(x)

    def matrix_exp(self, x: Array) -> Array:
        """The exponential, by scaling, a rational approximation and squaring."""
        return self._decomposed("the exponential is not finite", matrix_exp.matrix_exp, self.lib, x)

    # ---- moving elements

    def copy(self, x: Array) -> Array:
        """A copy in C order that the caller may write."""
        return x.copy(order="C")

    def reshape(self, x: Array, shape: Shape) -> Array:
        """The elements in C order under another shape: a view if x is C-contiguous or one element repeated, or if only
        axes of size 1 come and go; else a copy, even where strides could express it. So a plan can tell which it is.
        """
        if x.flags.c_contiguous or _without_ones(x.shape) == _without_ones(shape):
            return x.reshape(shape)
        if not any(stride for size, stride in zip(x.shape, x.strides, strict=True) if size != 1):
            return x.reshape(shape)
        return x.copy(order="C").reshape(shape)

    def copy_into(self, out: Array, x: Array) -> None:
        """Write x into out, converted to its element type as `astype` does."""
        out[...] = x

    def ufunc(self, word: str, dtype: DType) -> Any:
        """The library's ufunc for a word of the scalar language on operands of this dtype, None if it has none.

        A ufunc takes the array to write into as its last argument.
        """
        rounding = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}.get(word)
        found = getattr(self.lib, rounding) if rounding and dtype.is_float else getattr(self, word)
        return found if isinstance(found, self.lib.ufunc) else None

    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: Number = 0) -> Array:
        """x inside a border of one number."""
        shape = tuple(b + size + a for (b, a), size in zip(widths, x.shape, strict=True))
        result = self.lib.full(shape, value, x.dtype)
        result[tuple(slice(b, b + size) for (b, _), size in zip(widths, x.shape, strict=True))] = x
        return result

    def tril(self, x: Array, k: int) -> Array:
        """x on and below the k-th diagonal, zeros above."""
        return self.lib.tril(x, k)

    def triu(self, x: Array, k: int) -> Array:
        """x on and above the k-th diagonal, zeros below."""
        return self.lib.triu(x, k)

    # ---- indexing

    def checked_index(self, index: Array, size: int, *, wraps: bool = True) -> Array:
        """The index as int64; IndexRange if an element is not in [-size, size), or in [0, size) if it may not wrap."""
        if index.size:
            low, high = int(index.min()), int(index.max())
            lowest = -size if wraps else 0
            if low < lowest or high >= size:
                wrong = low if low < lowest else high
                raise IndexRange(f"index {wrong} is out of range for an axis of size {size}", index=wrong, size=size)
        return index.astype(np.int64, copy=False)

    def wrapped_index(self, index: Array, size: int) -> Array:
        """The index as int64 with negative elements counted from the end; IndexRange as in `checked_index`."""
        index = self.checked_index(index, size)
        return self.lib.where(index < 0, index + size, index)

    def take(self, x: Array, index: Array) -> Array:
        """The rows of x at index[*lead] -> [*lead, *rest]."""
        return self.lib.take(x, self.checked_index(index, x.shape[0]), axis=0)

    def take_along_axis(self, x: Array, index: Array, axis: int) -> Array:
        """The elements of x at index along one axis."""
        return self.lib.take_along_axis(x, self.checked_index(index, x.shape[axis]), axis=axis)

    def scatter_set(self, x: Array, index: Array, y: Array) -> Array:
        """x with its rows at index replaced by those of y; of equal indices the last counts."""
        at = self.wrapped_index(index, x.shape[0]).reshape(-1)
        result = x.copy(order="C")
        self._set_at(result, at, y.reshape((at.size, *x.shape[1:])))
        return result

    def scatter_add(self, x: Array, index: Array, rows: int) -> Array:
        """Zeros[rows, *rest] with the rows x[*lead, *rest] added at index[*lead], in the order of the index."""
        index = self.wrapped_index(index, rows)
        rest = x.shape[index.ndim :]
        width = t.product(rest)
        at = index.reshape(-1)
        if rest:
            at = (at[:, None] * width + self.lib.arange(width)).reshape(-1)
        return self._added(x, at, rows * width).reshape((rows, *rest))

    def add_along(self, x: Array, index: Array, axis: int, size: int) -> Array:
        """Zeros with ``size`` elements along an axis, to which x is added at index."""
        index = self.wrapped_index(index, size)
        shape = tuple(size if a == axis else n for a, n in enumerate(x.shape))
        if x.shape[axis] == 1:  # no element is hit twice, as in the gradient of a loss that picks one class
            result = self.lib.zeros(shape, x.dtype)
            self.lib.put_along_axis(result, index, x, axis)
            return result + self.lib.zeros((), x.dtype)  # 0 + -0 is 0
        at, stride = self.lib.zeros((), np.int64), 1
        for a in range(len(shape) - 1, -1, -1):
            line = tuple(shape[a] if b == a else 1 for b in range(len(shape)))
            place = index if a == axis else self.lib.arange(shape[a]).reshape(line)
            at = at + place * stride
            stride *= shape[a]
        return self._added(x, at.reshape(-1), t.product(shape)).reshape(shape)

    def sparse_matmul(self, values: Array, rows: Array, columns: Array, x: Array, height: int) -> Array:
        """Zeros[height, k] with values[i] * x[columns[i]] added at rows[i], in the order of i."""
        rows, columns = self.wrapped_index(rows, height), self.wrapped_index(columns, x.shape[0])
        width = x.shape[1]
        wide = np.float32 if self._is_16_bit_float(x) else x.dtype
        result = self.lib.zeros(height * width, wide)
        line = self.lib.arange(width)
        for part in self._parts(rows.size, width):
            product = values[part, None].astype(wide, copy=False) * x[columns[part]].astype(wide, copy=False)
            self._add_at(result, (rows[part, None] * width + line).reshape(-1), product.reshape(-1))
        return result.reshape((height, width)).astype(x.dtype, copy=False)

    def sampled_matmul(self, x: Array, y: Array, rows: Array, columns: Array) -> Array:
        """The elements of x @ y^T at (rows[i], columns[i])."""
        rows, columns = self.wrapped_index(rows, x.shape[0]), self.wrapped_index(columns, y.shape[0])
        wide = np.float32 if self._is_16_bit_float(x) else x.dtype
        result = self.lib.zeros(rows.shape, x.dtype)
        for part in self._parts(rows.size, x.shape[1]):
            product = x[rows[part]].astype(wide, copy=False) * y[columns[part]].astype(wide, copy=False)
            result[part] = product.sum(axis=-1, dtype=wide).astype(x.dtype, copy=False)
        return result

    def _parts(self, rows: int, width: int) -> Iterator[slice]:
        """The rows of a matrix in pieces of a bounded number of elements."""
        step = max(1, self.gathered_elements // max(1, width))
        return (slice(start, start + step) for start in range(0, rows, step))

    def _added(self, x: Array, at: Array, size: int) -> Array:
        """Zeros[size] with the elements of x added at positions ``at``, one after the other."""
        wide = x.astype(np.float32) if self._is_16_bit_float(x) else x
        result = self.lib.zeros(size, wide.dtype)
        self._add_at(result, at, wide.reshape(-1))
        return result.astype(x.dtype, copy=False)

    def _add_at(self, result: Array, at: Array, x: Array) -> None:
        """Add x[i] to result[at[i]], one i after the other."""
        self.lib.add.at(result, at, x)

    def _set_at(self, result: Array, at: Array, y: Array) -> None:
        """Replace result[at[i]] by y[i], one i after the other."""
        result[at] = y

    # ---- random numbers

    def _key_words(self, key: Array) -> Sequence[philox.Word]:
        """The four words of a random key, in the form in which new keys are derived from it."""
        return key.astype(np.uint64)

    def _words(self, key: Array, stream: int, start: int, count: int) -> Array:
        own = philox.op_key(self._key_words(key), stream)
        return philox.words(self.lib, own, start, count, chunk=self.philox_chunk)

    def random_fold(self, key: Array, index: Array) -> Array:
        """A key made of a key and a number of 63 bits."""
        words, number = key.astype(np.uint64), index.astype(np.uint64)
        counter = (words[2], words[3], number & 0xFFFFFFFF, (number >> 32) ^ 0x80000000)
        return self.lib.stack(philox.block(counter, (words[0], words[1]))).astype(np.uint32)

    def random_bits(self, key: Array, stream: int, offset: int, shape: Shape, dtype: DType) -> Array:
        """Random bits as uint32, or as uint64 of two words each, the first being the lower half."""
        n = t.product(shape)
        if dtype is t.uint32:
            return self._words(key, stream, offset, n).reshape(shape)
        halves = self._words(key, stream, 2 * offset, 2 * n).astype(np.uint64).reshape((*shape, 2))
        return halves[..., 0] | (halves[..., 1] << 32)

    def random_uniform(self, key: Array, stream: int, offset: int, shape: Shape, dtype: DType) -> Array:
        """The upper 24 (float32) or 53 (float64) random bits, scaled to [0, 1)."""
        if dtype is t.float32:
            bits = self.random_bits(key, stream, offset, shape, t.uint32)
            return (bits >> 8).astype(np.float32) * np.float32(2.0**-24)
        bits = self.random_bits(key, stream, offset, shape, t.uint64)
        return (bits >> 11).astype(np.float64) * 2.0**-53

    def random_normal(self, key: Array, stream: int, offset: int, shape: Shape, dtype: DType) -> Array:
        """Standard normal numbers from two uniform ones each (Box and Muller 1958)."""
        u = self.random_uniform(key, stream, 2 * offset, (*shape, 2), dtype)
        one = u.dtype.type(1.0)  # log(1 - u) is finite, for u is below 1
        radius = self.lib.sqrt(u.dtype.type(-2.0) * self.lib.log(one - u[..., 0]))
        return radius * self.lib.cos(u.dtype.type(2.0 * math.pi) * u[..., 1])


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


_SINGULAR = "a matrix is singular"
_DIVERGED = "the iteration did not end; are all elements finite?"


class NumpyModule(LibraryModule):
    """The array module over NumPy; special functions come from SciPy where it is installed."""

    name = "numpy"
    is_host = True
    philox_chunk = 8192  # temporaries stay in the second-level cache
    gathered_elements = 1 << 15

    def __init__(self) -> None:
        super().__init__(np)
        self.blas = openblas()

    def copy_into(self, out: Array, x: Array) -> None:
        """Write x into out, converted to its element type as `astype` does."""
        np.copyto(out, x, casting="unsafe")

    def _key_words(self, key: Array) -> Sequence[philox.Word]:
        return [int(word) for word in key]  # Python's integers: a hundred times the speed of arrays of one

    @cached_property
    def _functions(self) -> dict[str, Callable[[Any], Any]]:
        return _special_functions()  # SciPy loads in a third of a second: on first use

    def _special(self, name: str, x: Array) -> Array:
        wide = x.astype(np.float32) if self._is_16_bit_float(x) else x
        return np.asarray(self._functions[name](wide)).astype(x.dtype, copy=False)


def _special_functions() -> dict[str, Callable[[Any], Any]]:
    """The special functions: SciPy's, or our own where SciPy is not installed, as in the thin client."""
    try:
        from scipy.special import erf, erfinv, gammaln, psi  # pyright: ignore
    except ImportError:
        return {"erf": special.erf, "erfinv": special.erfinv, "lgamma": special.lgamma, "digamma": special.digamma}
    return {"erf": erf, "erfinv": erfinv, "lgamma": gammaln, "digamma": psi}
