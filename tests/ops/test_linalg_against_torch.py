"""Linear algebra in PyTorch: values, first and second gradients with random cotangents, as in `test_against_torch`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from telegrad import linalg, ops

from tests.ops.checks import Array
from tests.ops.operands import Operand, definite, real, regular, values, with_singular_values
from tests.ops.test_against_torch import Row, both, compare, torch

pytestmark = pytest.mark.torch

T: Any = torch.linalg


def symmetric(*shape: int) -> Operand:
    """Stacks of symmetric matrices, neither definite nor near one with equal eigenvalues."""

    def make(rng: np.random.Generator) -> Array:
        x = rng.uniform(-1.0, 1.0, shape)
        return (x + np.swapaxes(x, -1, -2)) / 2 + np.diag(2.0 * np.arange(shape[-1]) - 2.0)

    return make


def signed(vectors: Any, sign: Any) -> Any:
    """Columns made independent of the sign that LAPACK chose."""
    return vectors * sign(vectors[..., :1, :])


def our_vectors(result: Any) -> Any:
    return signed(result.eigenvectors, ops.sign)


def their_vectors(result: Any) -> Any:
    return signed(result.eigenvectors, torch.sign)


def our_svd(x: Any) -> Any:
    u, s, vh = linalg.svd(x, full_matrices=False)
    sign = ops.sign(u[..., :1, :])
    return ops.concat([ops.flatten(u * sign), ops.flatten(s), ops.flatten(ops.matrix_transpose(vh) * sign)])


def their_svd(x: Any) -> Any:
    u, s, vh = T.svd(x, full_matrices=False)
    sign = torch.sign(u[..., :1, :]).detach()
    return torch.cat([(u * sign).flatten(), s.flatten(), (vh.mT * sign).flatten()])


def joined(results: Any, library: Any) -> Any:
    flat = [x.reshape(-1) if library is torch else ops.reshape(x, (-1,)) for x in results]
    return torch.cat(flat) if library is torch else ops.concat(flat)


def einsum(subscripts: str, *operands: Operand) -> Row:
    return both(lambda *xs: ops.einsum(subscripts, *xs), lambda *xs: torch.einsum(subscripts, *xs), *operands)


SQUARE = ((3, 3), (2, 1, 3, 3))
ANY = ((3, 3), (4, 2), (2, 4), (2, 3, 2), (2, 2, 3))
ORDERS = (0, 0.5, 1, 1.5, 2, 3, 4.5, -1, -2, math.inf, -math.inf)

ROWS: dict[str, Row] = {
    # the lower triangle is read, the gradient is symmetric: at an operand that is not symmetric too
    **{f"cholesky_{s}": both(linalg.cholesky, T.cholesky, definite(*s)) for s in SQUARE},
    **{
        f"cholesky_upper_{s}": both(
            lambda x: linalg.cholesky(x, upper=True), lambda x: T.cholesky(x, upper=True), definite(*s)
        )
        for s in SQUARE
    },
    **{
        f"eigh_values_{s}": both(lambda x: linalg.eigh(x).eigenvalues, lambda x: T.eigh(x).eigenvalues, symmetric(*s))
        for s in SQUARE
    },
    **{
        f"eigh_vectors_{s}": both(
            lambda x: our_vectors(linalg.eigh(x)), lambda x: their_vectors(T.eigh(x)), symmetric(*s)
        )
        for s in SQUARE
    },
    **{f"eigvalsh_{s}": both(linalg.eigvalsh, T.eigvalsh, symmetric(*s)) for s in SQUARE},
    **{
        f"qr_{s}": both(lambda x: joined(linalg.qr(x), ops), lambda x: joined(T.qr(x), torch), regular(*s)) for s in ANY
    },
    **{
        f"qr_complete_{s}": both(
            lambda x: joined(linalg.qr(x, mode="complete"), ops),
            lambda x: joined(T.qr(x, mode="complete"), torch),
            regular(*s),
        )
        for s in ((3, 3), (2, 4))
    },
    **{f"svd_{s}": both(our_svd, their_svd, regular(*s)) for s in ANY},
    **{f"svdvals_{s}": both(linalg.svdvals, T.svdvals, regular(*s)) for s in ANY},
    **{f"inv_{s}": both(linalg.inv, T.inv, regular(*s)) for s in SQUARE},
    # where x is singular PyTorch's gradient of det is 0; test_ops has finite differences
    **{f"det_{s}": both(linalg.det, T.det, real(*s)) for s in SQUARE},
    **{f"slogdet_log_{s}": both(lambda x: linalg.slogdet(x)[1], lambda x: T.slogdet(x)[1], real(*s)) for s in SQUARE},
    "slogdet_sign": both(lambda x: linalg.slogdet(x)[0], lambda x: T.slogdet(x)[0].detach() + 0 * x.sum(), real(3, 3)),
    **{f"logdet_{s}": both(linalg.logdet, torch.logdet, regular(*s)) for s in SQUARE},
    "logdet_negative": both(linalg.logdet, torch.logdet, values([0.0, 1.0], [1.0, 0.0]), order=0),
    **{f"pinv_{s}": both(linalg.pinv, T.pinv, regular(*s)) for s in ANY},
    "pinv_rtol": both(
        lambda x: linalg.pinv(x, rtol=0.1),
        lambda x: T.pinv(x, rtol=0.1),
        with_singular_values(2.0, 1.0, 1e-13, rows=4, columns=3),
    ),
    **{
        f"solve_{a}_{b}": both(linalg.solve, T.solve, regular(*a), real(*b))
        for a, b in (((3, 3), (3, 2)), ((3, 3), (3,)), ((2, 3, 3), (2, 3, 2)), ((2, 1, 3, 3), (4, 3, 1)))
    },
    **{
        f"solve_triangular_{upper}_{left}_{unit}": both(
            lambda x, y, h=(upper, left, unit): linalg.solve_triangular(
                x, y, upper=h[0], left=h[1], unitriangular=h[2]
            ),
            lambda x, y, h=(upper, left, unit): T.solve_triangular(x, y, upper=h[0], left=h[1], unitriangular=h[2]),
            regular(2, 2, 2),
            real(2, 2, 2),
        )
        for upper in (True, False)
        for left in (True, False)
        for unit in (True, False)
    },
    "solve_triangular_transposed": both(
        lambda x, y: linalg.solve_triangular(x, y, upper=False, transposed=True),
        lambda x, y: T.solve_triangular(torch.tril(x).mT, y, upper=True),
        regular(3, 3),
        real(3, 2),
    ),
    **{
        f"cholesky_solve_{upper}": both(
            lambda y, x, u=upper: linalg.cholesky_solve(y, x, upper=u),
            lambda y, x, u=upper: torch.cholesky_solve(y, torch.triu(x) if u else torch.tril(x), upper=u),
            real(2, 3, 2),
            regular(2, 3, 3),
        )
        for upper in (False, True)
    },
    **{
        f"lstsq_{a}": both(linalg.lstsq, lambda x, y: T.pinv(x) @ y, regular(*a), real(*a[:-1], 2))
        for a in ((4, 2), (2, 4), (2, 3, 2))
    },
    **{
        f"matrix_power_{n}": both(
            lambda x, n=n: linalg.matrix_power(x, n), lambda x, n=n: T.matrix_power(x, n), regular(2, 3, 3)
        )
        for n in (-3, -1, 1, 2, 5, 8)
    },
    "matrix_power_0": both(lambda x: linalg.matrix_power(x, 0), lambda x: T.matrix_power(x, 0), real(2, 2), order=0),
    **{f"matrix_exp_{s}": both(linalg.matrix_exp, T.matrix_exp, real(*s)) for s in SQUARE},
    **{
        f"vector_norm_{p}_{axis}": both(
            lambda x, p=p, a=axis: linalg.vector_norm(x, ord=p, axis=a, keepdims=a is not None),
            lambda x, p=p, a=axis: T.vector_norm(x, ord=p, dim=a, keepdim=a is not None),
            real(2, 3, 2),
        )
        for p in ORDERS
        for axis in (None, -1, (0, 2))
    },
    **{
        f"matrix_norm_{p}": both(
            lambda x, p=p: linalg.matrix_norm(x, ord=p, keepdims=True),
            lambda x, p=p: T.matrix_norm(x, ord=p, keepdim=True),
            real(2, 3, 2),
        )
        for p in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)
    },
    "norm_at_zero": both(linalg.vector_norm, T.vector_norm, values(0.0, 0.0), order=1),
    **{
        f"norm_{p}_with_zeros": both(
            lambda x, p=p: linalg.vector_norm(x, ord=p),
            lambda x, p=p: T.vector_norm(x, ord=p),
            values(0.0, -1.0, 2.0),
            order=1,
        )
        for p in (0, 1, 1.5, 2, 3, math.inf)
    },
    **{
        f"cond_{p}": both(lambda x, p=p: linalg.cond(x, p), lambda x, p=p: T.cond(x, p), regular(2, 3, 3))
        for p in (None, 2, -2, "nuc")
    },
    **{  # PyTorch 2.13 writes over what its own backward needs
        f"cond_{p}": both(
            lambda x, p=p: linalg.cond(x, p),
            lambda x, p=p: T.matrix_norm(x, ord=p) * T.matrix_norm(T.inv(x), ord=p),
            regular(2, 3, 3),
        )
        for p in ("fro", 1, -1, math.inf, -math.inf)
    },
    "cond_rectangular": both(linalg.cond, T.cond, regular(2, 3)),
    "trace": both(linalg.trace, lambda x: torch.einsum("bii->b", x), real(2, 3, 3)),
    **{
        f"cross_{axis}": both(
            lambda x, y, a=axis: ops.cross(x, y, axis=a), lambda x, y, a=axis: T.cross(x, y, dim=a), real(*a), real(*b)
        )
        for axis, a, b in ((-1, (2, 3), (1, 3)), (-2, (3, 2), (3, 1)), (0, (3, 2), (3, 2)))
    },
    "kron": both(ops.kron, torch.kron, real(2, 3), real(2, 2)),
    "kron_ranks": both(ops.kron, torch.kron, real(2), real(3, 2, 2)),
    **{f"diag_{k}": both(lambda x, k=k: ops.diag(x, k), lambda x, k=k: torch.diag(x, k), real(3)) for k in (-2, 0, 1)},
    "diag_matrix": both(lambda x: ops.diag(x, -1), lambda x: torch.diag(x, -1), real(3, 2)),
    **{
        f"diag_embed_{k}": both(
            lambda x, k=k: ops.diag_embed(x, offset=k), lambda x, k=k: torch.diag_embed(x, offset=k), real(2, 3)
        )
        for k in (-1, 0, 2)
    },
    "vecdot": both(linalg.vecdot, T.vecdot, real(2, 3), real(3)),
    "einsum_matmul": einsum("ij,jk->ik", real(2, 3), real(3, 2)),
    "einsum_implicit": einsum("kj,ji", real(2, 3), real(3, 2)),
    "einsum_attention": einsum("bqhd,bkhd->bhqk", real(2, 3, 2, 2), real(2, 2, 2, 2)),
    "einsum_bilinear": einsum("bi,oij,bj->bo", real(2, 3), real(2, 3, 2), real(2, 2)),
    "einsum_dots": einsum("...ij,...jk->...ik", real(2, 1, 2, 3), real(3, 3, 2)),
    "einsum_dots_end": einsum("i...,j...->...ji", real(2, 2), real(3, 2)),
    "einsum_trace": einsum("bii->b", real(2, 3, 3)),
    "einsum_diagonal": einsum("iij,i->ji", real(2, 2, 3), real(2)),
    "einsum_sum": einsum("ijk->j", real(2, 3, 2)),
    "einsum_outer": einsum("i,j,k->kij", real(2), real(3), real(2)),
    "einsum_scalar": einsum("ij,ij->", real(2, 3), real(2, 3)),
    "einsum_unused": einsum("ij,k->i", real(2, 3), real(2)),
    "einsum_ones": einsum("ij,ij->ij", real(1, 3), real(2, 3)),
    "einsum_chain": einsum("ab,bc,cd,de->ae", real(2, 3), real(3, 2), real(2, 4), real(4, 1)),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_values_and_gradients_are_those_of_pytorch(name: str) -> None:
    compare(name, ROWS[name], tolerance=1e-6 if name.startswith(("svd", "cond", "matrix_norm_nuc")) else 1e-7)


def test_every_name_of_the_namespace_is_compared_somewhere() -> None:
    elsewhere = {"matmul", "matrix_transpose", "tensordot", "outer", "diagonal", "slogdet", "matrix_rank"}
    rows = " ".join(ROWS)
    names = [n for n in linalg.__all__ if not n.endswith("Result")]

    assert [n for n in names if n not in rows and n not in elsewhere] == []
