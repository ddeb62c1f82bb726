"""Products of a sparse matrix with dense ones, the sparse one being its elements and where they stand.

They are ops for the memory: in primitives each element's row of the dense matrix would be gathered before it is added,
once more of it for every element. The two ops are each other's derivatives, so they differentiate to any order. Equal
places count twice, and additions come in the order of the elements. `telegrad.sparse` is the public face.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Type, check_shape
from telegrad.ir.value import Value
from telegrad.ir.xp import Array, ArrayModule


def _check_places(op: str, rows: Type, columns: Type) -> None:
    for index in (rows, columns):
        if index.ndim != 1 or index.shape != rows.shape:
            raise ShapeError(f"{op}: rows and columns must be vectors of one length, not {rows} and {columns}")
        if index.dtype.kind not in ("int", "uint"):
            raise DTypeError(f"{op}: rows and columns must be integers, not {index}")


def _check_dtypes(op: str, x: Type, y: Type) -> None:
    if x.dtype is not y.dtype or x.dtype.kind == "bool":
        raise DTypeError(f"{op}({x}, {y}): takes numbers of one dtype; use astype")


@dataclass(frozen=True)
class SparseMatmul(Op):
    """S @ x[n, k] -> [height, k] for the matrix S[height, n] with S[rows[i], columns[i]] += values[i]."""

    height: int

    def infer(self, values: Type, rows: Type, columns: Type, x: Type) -> Type:
        _check_places("sparse_matmul", rows, columns)
        _check_dtypes("sparse_matmul", values, x)
        if values.shape != rows.shape or x.ndim != 2:
            raise ShapeError(f"sparse_matmul({values}, {rows}, {columns}, {x}): a value for each place, and a matrix")
        return Type(check_shape((self.height, x.shape[1]), op="sparse_matmul"), x.dtype)

    def vjp(
        self, g: Value, out: Value, values: Value, rows: Value, columns: Value, x: Value
    ) -> tuple[Value, None, None, Value]:
        return SampledMatmul()(g, x, rows, columns), None, None, SparseMatmul(x.shape[0])(values, columns, rows, g)

    def eval(self, xp: ArrayModule, values: Array, rows: Array, columns: Array, x: Array) -> Array:
        return xp.sparse_matmul(values, rows, columns, x, self.height)

    def cost(self, *types: Type) -> Cost:
        values, rows, columns, x = types
        moved = values.size * x.shape[1] * x.dtype.itemsize
        given = values.nbytes + rows.nbytes + columns.nbytes + x.nbytes
        return Cost(2 * values.size * x.shape[1], given + moved + self.infer(*types).nbytes)


class SampledMatmul(Op):
    """out[i] = sum over k of x[rows[i], k] * y[columns[i], k]: the elements of x @ y^T at some places."""

    def infer(self, x: Type, y: Type, rows: Type, columns: Type) -> Type:
        _check_places("sampled_matmul", rows, columns)
        _check_dtypes("sampled_matmul", x, y)
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
            raise ShapeError(f"sampled_matmul({x}, {y}): takes two matrices with as many columns")
        return Type(rows.shape, x.dtype)

    def vjp(
        self, g: Value, out: Value, x: Value, y: Value, rows: Value, columns: Value
    ) -> tuple[Value, Value, None, None]:
        gx = SparseMatmul(x.shape[0])(g, rows, columns, y)
        return gx, SparseMatmul(y.shape[0])(g, columns, rows, x), None, None

    def eval(self, xp: ArrayModule, x: Array, y: Array, rows: Array, columns: Array) -> Array:
        return xp.sampled_matmul(x, y, rows, columns)

    def cost(self, *types: Type) -> Cost:
        x, y, rows, columns = types
        moved = 2 * rows.size * x.shape[1] * x.dtype.itemsize
        given = x.nbytes + y.nbytes + rows.nbytes + columns.nbytes
        return Cost(2 * rows.size * x.shape[1], given + moved + self.infer(*types).nbytes)
