"""Linear systems and what belongs to them: inverses, least squares, powers and exponentials.

Every op takes stacks: the last two axes are the matrix, those in front are a batch, and all may have size 0. They
take float32 and float64. The rules are written in values, so they differentiate again. A matrix without a result
(singular, not positive definite, an iteration that does not end) fails the run with a sentence that names the op.
"""

from __future__ import annotations

import operator as py
from dataclasses import dataclass
from typing import ClassVar

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op, result_types
from telegrad.ir.types import Type, broadcast_shapes, check_shape, product
from telegrad.ir.value import Operators, V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.linalg import Matmul, identity_like
from telegrad.ops.shape import Tril, Triu, broadcast_to, concat, expand_dims, matrix_transpose, reshape, zeros_like

__all__: list[str] = []  # users find these in telegrad.linalg


class MatrixOp(Op, abstract=True):
    """The family: ops of float32 and float64 matrices, in stacks along the leading axes."""

    uses_blas: ClassVar[bool] = True

    def check_matrices(self, *types: Type) -> None:
        """Raise DTypeError or ShapeError unless all operands are matrices of one dtype that the op takes."""
        given = ", ".join(map(str, types))
        if any(not x.dtype.is_float or x.dtype.itemsize < 4 for x in types):
            raise DTypeError(f"{self.name}({given}): takes float32 or float64; use astype")
        if any(x.dtype is not types[0].dtype for x in types):
            raise DTypeError(f"{self.name}({given}): dtypes must be equal; use astype")
        if any(x.ndim < 2 for x in types):
            raise ShapeError(f"{self.name}({given}): takes a matrix or a stack of them")

    def check_square(self, x: Type) -> None:
        """Raise ShapeError unless x is a stack of square matrices."""
        if x.shape[-1] != x.shape[-2]:
            raise ShapeError(f"{self.name}({x}): takes square matrices, not {x.shape[-2]} by {x.shape[-1]}")

    def cost_of(self, flops: int, *types: Type) -> Cost:
        """The cost for operands of these types, ``flops`` being that of one matrix of the first."""
        moved = sum(x.nbytes for x in (*types, *result_types(self, types, ())))
        return Cost(product(types[0].shape[:-2]) * flops, moved)


class SquareOp(MatrixOp, abstract=True):
    """The family: x[..., n, n] -> y[..., n, n]."""

    def infer(self, x: Type) -> Type:
        self.check_matrices(x)
        self.check_square(x)
        return x


class System(MatrixOp, abstract=True):
    """The family: x[..., n, n], y[..., n, k] -> [..., n, k]; the leading axes broadcast."""

    def infer(self, x: Type, y: Type) -> Type:
        self.check_matrices(x, y)
        self.check_square(x)
        if x.shape[-1] != y.shape[-2]:
            raise ShapeError(
                f"{self.name}({x}, {y}): a matrix with {x.shape[-1]} rows and a right-hand side with {y.shape[-2]}"
            )
        lead = broadcast_shapes(x.shape[:-2], y.shape[:-2], op=self.name)
        return Type(check_shape((*lead, *y.shape[-2:]), op=self.name), x.dtype)


@dataclass(frozen=True)
class Solve(System):
    """z[..., n, k] with x[..., n, n] @ z = y[..., n, k]; the leading axes broadcast."""

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        gy = Solve()(matrix_transpose(x), g)
        return -Matmul()(gy, matrix_transpose(out)), gy

    def eval(self, xp: ArrayModule, x: Array, y: Array) -> Array:
        return xp.solve(x, y)

    def cost(self, *types: Type) -> Cost:
        out, n = self.infer(*types), types[0].shape[-1]
        flops = product(types[0].shape[:-2]) * (2 * n**3 // 3) + 2 * n * out.size
        return Cost(flops, sum(x.nbytes for x in (*types, out)))


@dataclass(frozen=True)
class TriangularSolve(System):
    """z[..., n, k] with x z = y[..., n, k], or x^T z = y if ``transposed``, for triangular x[..., n, n].

    Only the triangle is read; if ``unit``, not even its diagonal, which counts as ones.
    """

    lower: bool
    transposed: bool = False
    unit: bool = False

    def vjp(self, g: Value, out: Value, x: Value, y: Value) -> tuple[Value, Value]:
        gy = TriangularSolve(self.lower, not self.transposed, self.unit)(x, g)
        left, right = (out, gy) if self.transposed else (gy, out)
        triangle = Tril(-self.unit) if self.lower else Triu(int(self.unit))
        return triangle(-Matmul()(left, matrix_transpose(right))), gy

    def eval(self, xp: ArrayModule, x: Array, y: Array) -> Array:
        return xp.triangular_solve(x, y, lower=self.lower, transposed=self.transposed, unit=self.unit)

    def cost(self, *types: Type) -> Cost:
        out = self.infer(*types)
        return Cost(types[0].shape[-1] * out.size, sum(x.nbytes for x in (*types, out)))


@dataclass(frozen=True)
class Inv(SquareOp):
    """The inverse of x[..., n, n]."""

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        transposed = matrix_transpose(out)
        return (-(transposed @ g @ transposed),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.inv(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(2 * types[0].shape[-1] ** 3, *types)


class PseudoInverse(MatrixOp, abstract=True):
    """The pseudo-inverse [..., n, m] of x[..., m, n]: singular values up to a part of the largest count as 0.

    The gradient is that for matrices of the same rank, outside of which the pseudo-inverse is not continuous.
    """

    reference = "Golub and Pereyra 1973, The Differentiation of Pseudo-Inverses, theorem 4.3"

    def gradient(self, g: Value, out: Value, x: Value) -> Value:
        """The gradient for x."""
        p, pt, gt = out, matrix_transpose(out), matrix_transpose(g)
        left = gt - x @ (p @ gt)  # (I - x p) g^T
        right = gt - (gt @ p) @ x  # g^T (I - p x)
        return left @ (p @ pt) + (pt @ p) @ right - pt @ g @ pt

    def inverted(self, xp: ArrayModule, x: Array, rtol: Array) -> Array:
        """The pseudo-inverse, with ``rtol`` for each matrix or for all."""
        u, s, vt = xp.svd(x, False)
        axes, zero = len(x.shape), xp.literal(0, s)
        if 0 in s.shape:
            return xp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), xp.dtype_of(x))
        largest = xp.max(s, axis=(axes - 2,), keepdims=True)
        counts = xp.greater(s, xp.multiply(rtol, largest))
        inverse = xp.where(counts, xp.reciprocal(xp.where(counts, s, xp.literal(1, s))), zero)
        swap = (*range(axes - 2), axes - 1, axes - 2)
        scaled = xp.multiply(u, xp.reshape(inverse, (*s.shape[:-1], 1, s.shape[-1])))
        return xp.matmul(xp.transpose(vt, swap), xp.transpose(scaled, swap))

    def cost(self, *types: Type) -> Cost:
        m, n = types[0].shape[-2:]
        k = min(m, n)
        return self.cost_of(14 * max(m, n) * k**2 + 8 * k**3 + 2 * m * n * k, *types)


@dataclass(frozen=True)
class Pinv(PseudoInverse):
    """The pseudo-inverse [..., n, m] of x[..., m, n]: singular values up to ``rtol`` times the largest count as 0."""

    rtol: float

    def infer(self, x: Type) -> Type:
        self.check_matrices(x)
        return Type((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (self.gradient(g, out, x),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return self.inverted(xp, x, xp.full((), self.rtol, xp.dtype_of(x)))


class PinvAbove(PseudoInverse):
    """The pseudo-inverse [..., n, m] of x[..., m, n] with a tolerance rtol[...] for each matrix."""

    def infer(self, x: Type, rtol: Type) -> Type:
        self.check_matrices(x)
        if rtol.dtype is not x.dtype or rtol.shape != x.shape[:-2]:
            raise ShapeError(f"pinv({x}): rtol must be {Type(x.shape[:-2], x.dtype)}, not {rtol}")
        return Type((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value, rtol: Value) -> tuple[Value, None]:
        return self.gradient(g, out, x), None

    def eval(self, xp: ArrayModule, x: Array, rtol: Array) -> Array:
        return self.inverted(xp, x, xp.reshape(rtol, (*x.shape[:-2], 1)))


@dataclass(frozen=True)
class MatrixExp(SquareOp):
    """The exponential of x[..., n, n]: the sum of x^k / k! over all k."""

    reference = "Al-Mohy and Higham 2009, Computing the Frechet Derivative of the Matrix Exponential, equation 1.6"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        n, last = x.shape[-1], x.ndim - 1
        transposed = matrix_transpose(x)
        upper = concat([transposed, g], axis=last)
        lower = concat([zeros_like(x), transposed], axis=last)
        return (MatrixExp()(concat([upper, lower], axis=last - 1))[..., :n, n:],)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.matrix_exp(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(30 * types[0].shape[-1] ** 3, *types)


# ---- the public functions


def _as_columns(x: V, y: V, op: str) -> tuple[V, V]:
    """Both in their common dtype, a vector y as one column."""
    x, y = e.common(x, y)
    if y.ndim == 0:
        raise ShapeError(f"{op}({x.type}, {y.type}): the right-hand side must be a vector or a matrix")
    return x, expand_dims(y, axis=-1) if y.ndim == 1 else y


def _as_given(z: V, y: V) -> V:
    """The solution as a vector if y is one."""
    return reshape(z, z.shape[:-1]) if y.ndim == 1 else z


def solve(x1: V, x2: V, /) -> V:
    """z with x1[..., n, n] @ z = x2, which is [..., n, k] or one vector [n]; stacks broadcast.

    ExecutionError if a matrix is singular.
    """
    x, y = _as_columns(x1, x2, "solve")
    return _as_given(Solve()(x, y), x2)


def solve_triangular(
    x1: V, x2: V, /, *, upper: bool, left: bool = True, unitriangular: bool = False, transposed: bool = False
) -> V:
    """z with x1 @ z = x2 for triangular x1[..., n, n], of which only the triangle is read; stacks broadcast.

    x2 is [..., n, k] or one vector [n]. ``left=False``: z @ x1 = x2 for x2[..., k, n]; ``transposed``: with x1^T in the
    place of x1; ``unitriangular``: the diagonal counts as ones. ExecutionError if there is a 0 on the diagonal.
    """
    if left:
        x, y = _as_columns(x1, x2, "solve_triangular")
        return _as_given(TriangularSolve(not upper, transposed, unitriangular)(x, y), x2)
    x, y = e.common(x1, x2)
    flipped = expand_dims(y, axis=-1) if y.ndim == 1 else matrix_transpose(y)
    z = TriangularSolve(not upper, not transposed, unitriangular)(x, flipped)
    return _as_given(z, x2) if x2.ndim == 1 else matrix_transpose(z)


def cholesky_solve(x1: V, x2: V, /, upper: bool = False) -> V:
    """z with A @ z = x1 for A = L L^T, L = x2[..., n, n] being its `cholesky`; or A = U^T U, U = x2, if ``upper``.

    x1 is [..., n, k] or one vector [n]; stacks broadcast. As in PyTorch the right-hand side comes first.
    """
    x, y = _as_columns(x2, x1, "cholesky_solve")
    first = TriangularSolve(not upper, transposed=upper)(x, y)
    return _as_given(TriangularSolve(not upper, transposed=not upper)(x, first), x1)


def inv(x: V, /) -> V:
    """The inverse of x[..., n, n]. ExecutionError if a matrix is singular; `solve` is faster and more accurate."""
    return Inv()(x)


def default_rtol(x: Operators) -> float:
    """The array API's: the larger size of the matrices times the spacing of floats at 1."""
    return max(x.shape[-2:], default=0) * (2.0**-23 if x.dtype is t.float32 else 2.0**-52)


def pinv(x: V, /, *, rtol: float | V | None = None) -> V:
    """The pseudo-inverse [..., n, m] of x[..., m, n].

    Singular values up to ``rtol``, for all or for each matrix, times the largest count as 0; by default it is max(m, n)
    times the spacing of floats at 1. The gradient holds for matrices of the same rank.
    """
    if rtol is None:
        return Pinv(default_rtol(x))(x)
    if isinstance(rtol, Operators):
        return PinvAbove()(x, broadcast_to(e.astype(rtol, x.dtype), x.shape[:-2]))
    if not 0 <= rtol < float("inf"):
        raise GraphError(f"pinv({x.type}): rtol must be a finite number not below 0, not {rtol!r:.40}")
    return Pinv(float(rtol))(x)


def lstsq(x1: V, x2: V, /, *, rtol: float | V | None = None) -> V:
    """z[..., n, k] of least norm among those that minimise |x1[..., m, n] @ z - x2|, where x2 is [..., m, k] or [m].

    It is `pinv` times x2, so singular values up to ``rtol`` times the largest count as 0; rank and residuals are not
    returned. The gradient holds for matrices of the same rank.
    """
    x, y = _as_columns(x1, x2, "lstsq")
    if x.ndim < 2 or x.shape[-2] != y.shape[-2]:
        raise ShapeError(f"lstsq({x1.type}, {x2.type}): a matrix and right-hand sides with as many rows")
    return _as_given(Matmul()(pinv(x, rtol=rtol), y), x2)


def matrix_power(x: V, n: int, /) -> V:
    """The product of n matrices x[..., m, m], by repeated squaring; of -n inverses if n is negative."""
    n = py.index(n)
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power({x.type}): takes square matrices")
    if x.dtype.kind == "bool":
        raise DTypeError(f"matrix_power({x.type}): takes numbers; use astype")
    if abs(n) > 2**31:
        raise GraphError(f"matrix_power({x.type}): the exponent {n} is beyond 2**31")
    if n == 0:
        return broadcast_to(identity_like(x), x.shape)
    square = Inv()(x) if n < 0 else x
    n, found = abs(n), None
    while n:
        if n & 1:
            found = square if found is None else Matmul()(found, square)
        n >>= 1
        if n:
            square = Matmul()(square, square)
    assert found is not None
    return found


def matrix_exp(x: V, /) -> V:
    """The exponential of x[..., n, n]: the sum of x^k / k! over all k."""
    return MatrixExp()(x)
