"""Matrices as products of simpler ones: Cholesky, QR, eigenvalues, singular values.

Every op takes stacks: the last two axes are the matrix, those in front are a batch, and all may have size 0. They
take float32 and float64. The rules are written in values, so they differentiate again.

Where a derivative does not exist, the formula is followed and nothing is hidden: eigenvectors of equal eigenvalues
and singular vectors of equal singular values give infinities and NaN.

On NumPy a matrix without a result (not positive definite, or one whose iteration does not end) fails the run with a
sentence that names the op; so it does on CuPy, at the price of one synchronisation for each decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from telegrad.errors import GraphError, ShapeError
from telegrad.ir.op import Cost
from telegrad.ir.types import Shape, Type, check_shape
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops.linalg import diag_embed, identity_like
from telegrad.ops.shape import Tril, Triu, concat, expand_dims, matrix_transpose
from telegrad.ops.systems import MatrixOp, SquareOp, TriangularSolve

__all__: list[str] = []  # users find these in telegrad.linalg


def lower_half(x: Value) -> Value:
    """The triangle below the diagonal, and half of the diagonal."""
    return (Tril(0)(x) + Tril(-1)(x)) * 0.5


def lower_gradient(g: Value) -> Value:
    """The gradient for the lower triangle that a symmetric matrix is read from, g being that of all its elements."""
    return lower_half(g + matrix_transpose(g))


@dataclass(frozen=True)
class Symmetric(SquareOp):
    """The symmetric matrix whose lower triangle is that of x[..., n, n]; the upper one is not read.

    By convention the gradient is that of symmetric matrices: (g + g^T) / 2, symmetric itself, so that a symmetric
    parameter stays one under gradient descent. JAX and PyTorch choose the same for Cholesky and eigh.
    """

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        return ((g + matrix_transpose(g)) * 0.5,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        n = len(x.shape)
        return xp.add(xp.tril(x, 0), xp.transpose(xp.tril(x, -1), (*range(n - 2), n - 1, n - 2)))


@dataclass(frozen=True)
class Cholesky(SquareOp):
    """The lower triangular L with L L^T = A, A being read from the lower triangle of x[..., n, n]."""

    reference = "Murray 2016, Differentiation of the Cholesky decomposition, section 3.2"

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        inverse_transposed = TriangularSolve(lower=True, transposed=True)
        inner = lower_half(matrix_transpose(out) @ Tril(0)(g))
        half = inverse_transposed(out, inner)
        return (lower_gradient(inverse_transposed(out, matrix_transpose(half))),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.cholesky(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(types[0].shape[-1] ** 3 // 3, *types)


@dataclass(frozen=True)
class Qr(MatrixOp):
    """Q with orthonormal columns and the upper triangular R with Q R = x[..., m, n].

    Q is [..., m, k] and R is [..., k, n] with k = min(m, n), or k = m if ``complete``. Raises GraphError for the
    gradient if ``complete`` and m > n, where the last columns of Q are not determined by x.
    """

    complete: bool = False

    reference = "Roberts and Roberts 2020, QR and LQ Decomposition Matrix Backpropagation Algorithms, section 3"

    def infer(self, x: Type) -> tuple[Type, Type]:
        self.check_matrices(x)
        m, n = x.shape[-2:]
        k = m if self.complete else min(m, n)
        q, r = (check_shape((*x.shape[:-2], *sizes), op="qr") for sizes in ((m, k), (k, n)))
        return Type(q, x.dtype), Type(r, x.dtype)

    def vjp(self, g: Any, out: Any, x: Value) -> tuple[Value]:
        m, n = x.shape[-2:]
        if self.complete and m > n:
            raise GraphError(
                f"qr({x.type}): mode 'complete' has no gradient where rows outnumber columns; use 'reduced'",
                reason="GRADIENT_MISSING",
                op=self.name,
            )
        q, r = out
        gq, gr = (value * 0 if known is None else known for known, value in zip(g, out, strict=True))
        if m >= n:
            return (_qr_gradient(gq, gr, q, r),)
        # x = [a, b] with a square, so r = [u, q^T b]: the rest of r is a plain product
        b, gb = x[..., m:], gr[..., m:]
        left = _qr_gradient(gq + b @ matrix_transpose(gb), gr[..., :m], q, r[..., :m])
        return (concat([left, q @ gb], axis=x.ndim - 1),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.qr(x, self.complete)

    def cost(self, *types: Type) -> Cost:
        (m, n), k = types[0].shape[-2:], min(types[0].shape[-2:])
        return self.cost_of(4 * m * n * k, *types)


def _qr_gradient(gq: Value, gr: Value, q: Value, r: Value) -> Value:
    """The gradient of q[..., m, n], r[..., n, n] for their product: (gq + q copyltu(r gr^T - gq^T q)) r^-T."""
    inner = r @ matrix_transpose(Triu(0)(gr)) - matrix_transpose(gq) @ q
    symmetric = Tril(0)(inner) + matrix_transpose(Tril(-1)(inner))
    right = matrix_transpose(gq + q @ symmetric)
    return matrix_transpose(TriangularSolve(lower=False)(r, right))


@dataclass(frozen=True)
class Eigh(MatrixOp):
    """The eigenvalues [..., n], ascending, and the eigenvectors, as columns [..., n, n], of a symmetric matrix.

    It is read from the lower triangle of x[..., n, n]. The gradient of the eigenvectors is infinite or NaN where
    eigenvalues are equal; that of the eigenvalues alone is not. Eigenvectors are determined up to their sign.
    """

    reference = "Giles 2008, Collected matrix derivative results, section 3.1"

    def infer(self, x: Type) -> tuple[Type, Type]:
        self.check_matrices(x)
        self.check_square(x)
        return Type(x.shape[:-1], x.dtype), x

    def vjp(self, g: Any, out: Any, x: Value) -> tuple[Value]:
        (gw, gv), (w, v) = g, out
        vt = matrix_transpose(v)
        if gv is None:
            return (lower_gradient((v * expand_dims(gw, axis=-2)) @ vt),)
        one = identity_like(x)
        distance = expand_dims(w, axis=-2) - expand_dims(w, axis=-1)
        inner = (1 - one) / (distance + one) * (vt @ gv)
        if gw is not None:
            inner = inner + diag_embed(gw)
        return (lower_gradient(v @ inner @ vt),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.eigh(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(9 * types[0].shape[-1] ** 3, *types)


@dataclass(frozen=True)
class Eigvalsh(MatrixOp):
    """The eigenvalues of Eigh without the eigenvectors, which only the gradient needs."""

    def infer(self, x: Type) -> Type:
        self.check_matrices(x)
        self.check_square(x)
        return Type(x.shape[:-1], x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        _, v = Eigh().results(x)
        return (lower_gradient((v * expand_dims(g, axis=-2)) @ matrix_transpose(v)),)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.eigvalsh(x)

    def cost(self, *types: Type) -> Cost:
        return self.cost_of(4 * types[0].shape[-1] ** 3 // 3, *types)


@dataclass(frozen=True)
class Svd(MatrixOp):
    """U, s and V^T with U diag(s) V^T = x[..., m, n], the singular values s[..., k] descending, k = min(m, n).

    U is [..., m, k] and V^T is [..., k, n]; if ``full_matrices`` they are square, and their gradient is a GraphError
    unless m = n, for x does not determine the further vectors. The gradient of the vectors is infinite or NaN where
    singular values are equal, and where one is 0 unless m = n; that of s alone is not.
    """

    full_matrices: bool = False

    reference = "Townsend 2016, Differentiating the Singular Value Decomposition"

    def infer(self, x: Type) -> tuple[Type, Type, Type]:
        self.check_matrices(x)
        *lead, m, n = x.shape
        k = min(m, n)
        rows, columns = (m, n) if self.full_matrices else (k, k)
        sizes: tuple[Shape, ...] = ((m, rows), (k,), (columns, n))
        u, s, vt = (Type(check_shape((*lead, *each), op="svd"), x.dtype) for each in sizes)
        return u, s, vt

    def vjp(self, g: Any, out: Any, x: Value) -> tuple[Value]:
        gu, gs, gvt = g
        m, n = x.shape[-2:]
        if self.full_matrices and m != n:
            if gu is not None or gvt is not None:
                raise GraphError(
                    f"svd({x.type}): the vectors of full_matrices=True have no gradient unless the matrix is square;"
                    " use full_matrices=False",
                    reason="GRADIENT_MISSING",
                    op=self.name,
                )
            out = Svd().results(x)
        u, s, vt = out
        if gu is None and gvt is None:
            return ((u * expand_dims(gs, axis=-2)) @ vt,)
        row, column = expand_dims(s, axis=-2), expand_dims(s, axis=-1)
        one = identity_like(x, min(m, n))
        gaps = (1 - one) / ((row - column) * (row + column) + one)
        ut, v = matrix_transpose(u), matrix_transpose(vt)
        inner = diag_embed(gs) if gs is not None else None
        beside: Value | None = None
        if gu is not None:
            turn = ut @ gu
            part = (turn - matrix_transpose(turn)) * gaps * row
            inner = part if inner is None else inner + part
            if m > n:
                beside = ((gu - u @ turn) / row) @ vt
        if gvt is not None:
            turn = gvt @ v
            part = column * (matrix_transpose(turn) - turn) * gaps
            inner = part if inner is None else inner + part
            if n > m:
                beside = (u / row) @ (gvt - turn @ vt)
        assert inner is not None
        found = u @ inner @ vt
        return (found if beside is None else found + beside,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.svd(x, self.full_matrices)

    def cost(self, *types: Type) -> Cost:
        (m, n), k = types[0].shape[-2:], min(types[0].shape[-2:])
        largest = max(m, n)
        full = 4 * largest**2 * k if self.full_matrices else 0
        return self.cost_of(14 * largest * k**2 + 8 * k**3 + full, *types)


@dataclass(frozen=True)
class Svdvals(MatrixOp):
    """The singular values of Svd without the vectors, which only the gradient needs."""

    def infer(self, x: Type) -> Type:
        self.check_matrices(x)
        return Type((*x.shape[:-2], min(x.shape[-2:])), x.dtype)

    def vjp(self, g: Value, out: Value, x: Value) -> tuple[Value]:
        u, _, vt = Svd().results(x)
        return ((u * expand_dims(g, axis=-2)) @ vt,)

    def eval(self, xp: ArrayModule, x: Array) -> Array:
        return xp.svdvals(x)

    def cost(self, *types: Type) -> Cost:
        (m, n), k = types[0].shape[-2:], min(types[0].shape[-2:])
        return self.cost_of(4 * m * n * k, *types)


# ---- the public functions


class QrResult(NamedTuple, Generic[V]):
    """What `qr` returns."""

    Q: V
    R: V


class EighResult(NamedTuple, Generic[V]):
    """What `eigh` returns."""

    eigenvalues: V
    eigenvectors: V


class SvdResult(NamedTuple, Generic[V]):
    """What `svd` returns."""

    U: V
    S: V
    Vh: V


def cholesky(x: V, /, *, upper: bool = False) -> V:
    """The triangular factor of positive definite x[..., n, n]: L with L L^T = x, or U with U^T U = x if ``upper``.

    Only that triangle of x is read; the gradient is symmetric. ExecutionError if a matrix is not positive definite.
    """
    if upper:
        return matrix_transpose(Cholesky()(Symmetric()(_transposed(x, "cholesky"))))
    return Cholesky()(Symmetric()(x))


def _transposed(x: V, op: str) -> V:
    if x.ndim < 2:
        raise ShapeError(f"{op}({x.type}): takes a matrix or a stack of them")
    return matrix_transpose(x)


def qr(x: V, /, *, mode: str = "reduced") -> QrResult[V]:
    """Q with orthonormal columns and the upper triangular R with Q R = x[..., m, n].

    They are [..., m, k] and [..., k, n], with k = min(m, n) in mode "reduced" and k = m in mode "complete", which has
    no gradient if m > n. The gradient needs the first k columns of x to be independent.
    """
    if mode not in ("reduced", "complete"):
        raise GraphError(f"qr: mode must be 'reduced' or 'complete', not {mode!r:.40}")
    return QrResult(*Qr(mode == "complete").results(x))


def eigh(x: V, /) -> EighResult[V]:
    """The eigenvalues [..., n], ascending, and eigenvectors, as columns [..., n, n], of symmetric x[..., n, n].

    Only the lower triangle of x is read; the gradient is symmetric. That of the eigenvectors is infinite or NaN where
    eigenvalues are equal. Eigenvectors are determined up to their sign, so a loss should not depend on it.
    """
    return EighResult(*Eigh().results(Symmetric()(x)))


def eigvalsh(x: V, /) -> V:
    """The eigenvalues [..., n], ascending, of symmetric x[..., n, n], read from its lower triangle."""
    return Eigvalsh()(Symmetric()(x))


def svd(x: V, /, *, full_matrices: bool = True) -> SvdResult[V]:
    """U, S and Vh with U diag(S) Vh = x[..., m, n], the singular values S[..., min(m, n)] descending.

    ``full_matrices=False`` leaves out the vectors that meet no singular value; only then have U and Vh a gradient if
    m is not n. It is infinite or NaN where singular values are equal. Vectors are determined up to a common sign.
    """
    return SvdResult(*Svd(full_matrices).results(x))


def svdvals(x: V, /) -> V:
    """The singular values [..., min(m, n)] of x[..., m, n], descending."""
    return Svdvals()(x)
