"""Linear algebra: the array API's ``linalg`` extension, and what PyTorch's users know beside it.

Matrices are the last two axes, and all leading axes are a batch. Decompositions take float32 and float64.
"""

from telegrad.ops.decompositions import (
    EighResult,
    QrResult,
    SvdResult,
    cholesky,
    eigh,
    eigvalsh,
    qr,
    svd,
    svdvals,
)
from telegrad.ops.determinants import SlogdetResult, det, logdet, slogdet
from telegrad.ops.linalg import cross, diagonal, matmul, outer, tensordot, trace, vecdot
from telegrad.ops.matrix_norms import cond, matrix_norm, matrix_rank, vector_norm
from telegrad.ops.shape import matrix_transpose
from telegrad.ops.systems import (
    cholesky_solve,
    inv,
    lstsq,
    matrix_exp,
    matrix_power,
    pinv,
    solve,
    solve_triangular,
)

__all__ = [
    "EighResult", "QrResult", "SlogdetResult", "SvdResult", "cholesky", "cholesky_solve", "cond", "cross", "det",
    "diagonal", "eigh", "eigvalsh", "inv", "logdet", "lstsq", "matmul", "matrix_exp", "matrix_norm", "matrix_power",
    "matrix_rank", "matrix_transpose", "outer", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals",
    "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
