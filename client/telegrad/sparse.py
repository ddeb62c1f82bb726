"""Sparse matrices as coordinates: values and where they stand, two tensors in one.

The gradient of what is computed with one goes to ``values`` and to the dense operand, and never has the size of the
dense matrix. Equal places add up, as in PyTorch's uncoalesced tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from telegrad import ops
from telegrad.creation import asarray
from telegrad.errors import AxisError, DTypeError, ShapeError
from telegrad.ir.types import DType, check_shape, product
from telegrad.ir.value import Number, Operators, V
from telegrad.ops.elementwise import astype, common, multiply, negative
from telegrad.ops.index import CheckedIndex, ScatterAdd
from telegrad.ops.shape import as_shape
from telegrad.ops.sparse import SparseMatmul
from telegrad.tensor import Tensor

__all__ = ["Coo", "coo", "from_dense"]


class Sizes(tuple[int, ...]):
    """A shape as one value of a nest, so that a traced function takes it as part of its signature."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class Coo(Generic[V]):
    """The sparse array with ``values[i]`` at ``indices[:, i]``, where equal places add up. Made by `coo`.

    A nest of its two tensors: it goes through `tg.function`, `scope.keep` and other places that take nests.
    """

    indices: V
    values: V
    shape: Sizes

    is_sparse: ClassVar[bool] = True

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def nnz(self) -> int:
        """The number of values, those at equal places counted one by one."""
        return self.values.size

    @property
    def T(self) -> Coo[V]:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError(f".T takes a sparse matrix, not one of shape {list(self.shape)}; use transpose")
        return self.transpose((1, 0))

    def transpose(self, axes: Sequence[int]) -> Coo[V]:
        """The axes in another order."""
        order = tuple([a % max(1, self.ndim) if -self.ndim <= a < self.ndim else a for a in axes])
        if sorted(order) != list(range(self.ndim)):
            raise AxisError(f"transpose: {tuple(axes)} is no order of {self.ndim} axes")
        rows = ops.stack([self.indices[a] for a in order])
        return Coo(rows, self.values, Sizes(self.shape[a] for a in order))

    def __matmul__(self, other: V) -> V:
        """S[m, n] @ x[n, k] -> [m, k], or x[n] -> [m]. IndexRange on reading, if a place is outside."""
        if not isinstance(other, Operators):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DTypeError(f"a sparse matrix is multiplied with a tensor, not with {type(other).__name__}")
        if self.ndim != 2 or other.ndim not in (1, 2) or self.shape[1] != other.shape[0]:
            raise ShapeError(f"matmul(sparse {list(self.shape)}, {other.type}): the inner sizes must be equal")
        values, x = common(self.values, other)
        columns = x if x.ndim == 2 else ops.expand_dims(x, 1)
        # places are checked against the shape: the op itself would let a column of the wrong sign count from the end
        rows, places = (CheckedIndex(n, wraps=False)(self.indices[a]) for a, n in enumerate(self.shape))
        result = SparseMatmul(self.shape[0])(values, rows, places, columns)
        return result if x.ndim == 2 else ops.squeeze(result, 1)

    def __rmatmul__(self, other: V) -> V:
        """x[k, m] @ S[m, n] -> [k, n], or x[m] -> [n]."""
        if self.ndim != 2 or not 1 <= other.ndim <= 2 or other.shape[-1] != self.shape[0]:
            raise ShapeError(f"matmul({other.type}, sparse {list(self.shape)}): the inner sizes must be equal")
        if other.ndim == 1:
            return self.T @ other
        return ops.matrix_transpose(self.T @ ops.matrix_transpose(other))

    def __mul__(self, other: V | Number) -> Coo[V]:
        """Every value times a number or a tensor of one element."""
        if isinstance(other, Operators) and other.ndim:
            raise ShapeError(f"a sparse array is multiplied with one number, not with {other.type}; use to_dense")
        return Coo(self.indices, multiply(self.values, other), self.shape)

    __rmul__ = __mul__

    def __neg__(self) -> Coo[V]:
        return Coo(self.indices, negative(self.values), self.shape)

    def __add__(self, other: Coo[V]) -> Coo[V]:
        """The values of both; `coalesce` adds up those at equal places."""
        if not isinstance(other, Coo) or other.shape != self.shape:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShapeError(f"to a sparse array of shape {list(self.shape)} one of the same shape can be added")
        indices = ops.concat([self.indices, other.indices], axis=1)
        return Coo(indices, ops.concat([self.values, other.values]), self.shape)

    def astype(self, dtype: DType, /) -> Coo[V]:
        """The values converted to another dtype."""
        return Coo(self.indices, astype(self.values, dtype), self.shape)

    def to_dense(self) -> V:
        """The array with zeros where nothing stands. IndexRange on reading, if a place is outside."""
        flat = ScatterAdd(product(self.shape))(self.values, self._places())
        return ops.reshape(flat, self.shape)

    def coalesce(self, *, size: int | None = None) -> Coo[V]:
        """The same array with each place once, in C order, and the values at equal places added up.

        How many there are is read; inside `tg.function` ``size`` says it, and missing ones are zeros at the last place.
        """
        places, inverse = ops.unique_inverse(self._places(), size=size)
        values = ScatterAdd(places.size)(self.values, inverse)
        rows = ops.selection.unravelled(places, self.shape)
        return Coo(ops.stack(rows), values, self.shape)

    def _places(self) -> V:
        """Where the values stand in the flattened array, every index checked against its own axis."""
        flat: V | None = None
        for a, n in enumerate(self.shape):
            along = CheckedIndex(n, wraps=False)(self.indices[a])
            flat = along if flat is None else flat * n + along
        assert flat is not None
        return flat

    def __repr__(self) -> str:
        return f"<sparse {self.dtype}[{','.join(map(str, self.shape))}] of {self.nnz} values>"


def coo(indices: Any, values: Any, shape: Sequence[int]) -> Coo[Tensor]:
    """The sparse array of a shape with ``values[n]`` at ``indices[axes, n]``; both may be tensors, arrays or lists.

    Values at equal places add up. An index outside the shape is an IndexRange when a result is read. Raises ShapeError
    or DTypeError if the three do not fit.

    ::

        s = tg.sparse.coo([[0, 1, 1], [2, 0, 2]], [3.0, 4.0, 5.0], (2, 3))
        y = s @ tg.ones((3, 4))
    """
    places, numbers = asarray(indices), asarray(values)
    sizes = check_shape(as_shape(shape), op="sparse.coo")
    if not sizes:
        raise ShapeError("sparse.coo: a sparse array has at least one axis")
    if places.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"sparse.coo: the indices must be integers, not {places.type}")
    if numbers.ndim != 1 or numbers.dtype.kind == "bool":
        raise ShapeError(f"sparse.coo: the values must be a vector of numbers, not {numbers.type}")
    if places.shape != (len(sizes), numbers.size):
        raise ShapeError(
            f"sparse.coo: {numbers.size} values of {len(sizes)} axes need indices of shape"
            f" {[len(sizes), numbers.size]}, not {list(places.shape)}"
        )
    return Coo(places, numbers, Sizes(sizes))


def from_dense(x: Tensor, /) -> Coo[Tensor]:
    """The elements of x that are not zero. How many there are is read; TraceError inside `tg.function`."""
    places = ops.nonzero(x)
    return Coo(ops.stack(places), x[places], Sizes(x.shape))
