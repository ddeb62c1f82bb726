"""Determinants and their logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from telegrad.ir import types as t
from telegrad.ir.op import Cost
from telegrad.ir.types import Type
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops.decompositions import Svd
from telegrad.ops.linalg import diag_embed, diagonal, identity_like
from telegrad.ops.reduce import product_of_others
from telegrad.ops.shape import expand_dims, matrix_transpose, reshape
from telegrad.ops.systems import Inv, MatrixOp, SquareOp

__all__: list[str] = []  # users find these in telegrad.linalg


@dataclass(frozen=True)
class Slogdet(MatrixOp):
    """The sign [...] of the determinant of x[..., n, n], and the logarithm [...] of its absolute value.

    They are 0 and -inf for a singular matrix, which has no gradient: it needs the inverse.
    """

    def infer(self, x: Type) -> tuple[Type, Type]:
        self.check_matrices(x)
        self.check_square(x)
        number = Type(x.shape[:-2], x.dtype)
        return number, number

    def vjp(self, g: Any, out: Any, x: Value) -> tuple[Value | None]:
        if g[1] is None:
            return (None,)
        return (expand_dims(g[1], axis=(-2, -1)) * matrix_transpose(Inv()(x)),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.slogdet(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(2 * types[0].shape[-1] ** 3 // 3, *types)


@dataclass(frozen=True)
class Det(MatrixOp):
    """The determinant [...] of x[..., n, n]. Its gradient is right for singular matrices too."""

    def infer(self, x: Type) -> Type:
        self.check_matrices(x)
        self.check_square(x)
        return Type(x.shape[:-2], x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return (expand_dims(g, axis=(-2, -1)) * Cofactor()(x),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.det(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(2 * types[0].shape[-1] ** 3 // 3, *types)


@dataclass(frozen=True)
class Cofactor(SquareOp):
    """The cofactors of x[..., n, n], the derivative of its determinant: det(x) inv(x)^T where that exists.

    With x = U diag(s) V^T they are det(U V^T) U diag(c) V^T, c_i being the product of all s but s_i, so no inverse is
    needed; and the second derivative of the determinant needs but the products of all s but two.
    """

    reference = "Magnus and Neudecker 2019, Matrix Differential Calculus, section 8.3, in the coordinates of the SVD"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        u, s, vt = Svd().results(x)
        one = identity_like(x)
        ut, v = matrix_transpose(u), matrix_transpose(vt)
        sign = expand_dims(Slogdet().results(u)[0] * Slogdet().results(vt)[0], axis=(-2, -1))
        # others[i, j]: the product of all s but s_i and s_j, 0 where i = j
        others = product_of_others(one + (1 - one) * expand_dims(s, axis=-2)) * (1 - one)
        turned = ut @ g @ v
        straight = diag_embed(reshape(others @ expand_dims(diagonal(turned), axis=-1), s.shape))
        return (sign * (u @ (straight - others * matrix_transpose(turned)) @ vt),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        u, s, vt = xp.svd(x, False)
        n, axes = x.shape[-1], len(x.shape)
        places = xp.arange(n, t.int64)
        is_diagonal = xp.equal(xp.reshape(places, (n, 1)), places)
        row = xp.reshape(s, (*s.shape[:-1], 1, n))
        others = xp.prod(xp.where(is_diagonal, xp.literal(1, s), row), axis=(axes - 1,))
        sign = xp.multiply(xp.slogdet(u)[0], xp.slogdet(vt)[0])
        factors = xp.multiply(others, xp.reshape(sign, (*sign.shape, 1)))
        return xp.matmul(xp.multiply(u, xp.reshape(factors, row.shape)), vt)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(26 * types[0].shape[-1] ** 3, *types)


# ---- the public functions


class SlogdetResult(NamedTuple, Generic[V]):
    """What `slogdet` returns."""

    sign: V
    logabsdet: V


def det(x: V, /) -> V:
    """The determinant [...] of x[..., n, n]; its gradient is right for singular matrices too."""
    return Det()(x)


def slogdet(x: V, /) -> SlogdetResult[V]:
    """The sign of the determinant of x[..., n, n] and the logarithm of its absolute value: 0 and -inf if singular."""
    return SlogdetResult(*Slogdet().results(x))


def logdet(x: V, /) -> V:
    """The logarithm [...] of the determinant of x[..., n, n]: NaN if it is negative, -inf if it is 0."""
    sign, logabsdet = slogdet(x)
    return e.where(sign < 0, float("nan"), logabsdet)
