"""The methods of a tensor that have NumPy's and PyTorch's names and positions, each a function of `telegrad.ops`.

Where the two libraries differ for one name, NumPy's meaning holds, which is also that of the array API's function:
``x.max(1)`` is the values alone, ``x.var()`` divides by n. The class has no body but this table: a method that takes
its arguments as the function does is the function, and the others are written above it.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad import ops
from telegrad.errors import AxisError
from telegrad.ir.types import DType, normalize_axis
from telegrad.ir.value import Operators, V
from telegrad.ops import elementwise as e

Axis = int | Sequence[int] | None


# ---- shapes


def _reshape(x: V, *shape: int | Sequence[int]) -> V:
    """The same elements under another shape; one size may be -1."""
    return ops.reshape(x, _ints(shape))


def _squeeze(x: V, dim: Axis = None) -> V:
    """Without axes of size 1: all of them, or those named."""
    if dim is None:
        dim = tuple(i for i, size in enumerate(x.shape) if size == 1)
    return ops.squeeze(x, dim if isinstance(dim, int) else tuple(dim))


def _unsqueeze(x: V, dim: int) -> V:
    """With a new axis of size 1 at ``dim``."""
    return ops.expand_dims(x, dim)


def _permute(x: V, *dims: int | Sequence[int]) -> V:
    """The axes in another order."""
    return ops.permute_dims(x, _ints(dims))


def _transpose(x: V, *axes: int | Sequence[int]) -> V:
    """Two axes swapped (PyTorch), or all axes in the order of a tuple or of more numbers, reversed if none is given."""
    if not axes:
        return ops.permute_dims(x, tuple(reversed(range(x.ndim))))
    if len(axes) != 2:
        return ops.permute_dims(x, _ints(axes))
    order = list(range(x.ndim))
    i, j = (normalize_axis(a, x.ndim, op="transpose") for a in _ints(axes))
    order[i], order[j] = j, i
    return ops.permute_dims(x, order)


def _expand(x: V, *shape: int | Sequence[int]) -> V:
    """Broadcast to a shape; -1 keeps a size."""
    wanted = _ints(shape)
    lead = len(wanted) - x.ndim
    if lead < 0 or -1 in wanted[:lead]:
        raise AxisError(f"expand: a {x.type} has no sizes to keep for {list(wanted)}")
    return ops.broadcast_to(x, tuple(x.shape[i - lead] if n == -1 else n for i, n in enumerate(wanted)))


# ---- reductions


def _sum(x: V, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> V:
    """The sum over axes."""
    return ops.sum(x, axis=_axes(axis), dtype=dtype, keepdims=keepdims)


def _prod(x: V, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> V:
    """The product over axes."""
    return ops.prod(x, axis=_axes(axis), dtype=dtype, keepdims=keepdims)


def _mean(x: V, axis: Axis = None, keepdims: bool = False) -> V:
    """The mean over axes."""
    return ops.mean(x, axis=_axes(axis), keepdims=keepdims)


def _var(x: V, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The variance over axes, divided by n - correction."""
    return ops.var(x, axis=_axes(axis), correction=correction, keepdims=keepdims)


def _std(x: V, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> V:
    """The standard deviation over axes, from the variance with n - correction."""
    return ops.std(x, axis=_axes(axis), correction=correction, keepdims=keepdims)


def _max(x: V, axis: Axis = None, keepdims: bool = False) -> V:
    """The largest element over axes."""
    return ops.max(x, axis=_axes(axis), keepdims=keepdims)


def _min(x: V, axis: Axis = None, keepdims: bool = False) -> V:
    """The smallest element over axes."""
    return ops.min(x, axis=_axes(axis), keepdims=keepdims)


def _argmax(x: V, axis: int | None = None, keepdims: bool = False) -> V:
    """The position of the first largest element."""
    return ops.argmax(x, axis=axis, keepdims=keepdims)


def _argmin(x: V, axis: int | None = None, keepdims: bool = False) -> V:
    """The position of the first smallest element."""
    return ops.argmin(x, axis=axis, keepdims=keepdims)


def _any(x: V, axis: Axis = None, keepdims: bool = False) -> V:
    """Whether any element is true."""
    return ops.any(x, axis=_axes(axis), keepdims=keepdims)


def _all(x: V, axis: Axis = None, keepdims: bool = False) -> V:
    """Whether all elements are true."""
    return ops.all(x, axis=_axes(axis), keepdims=keepdims)


def _softmax(x: V, dim: int = -1) -> V:
    """exp(x) over its sum along ``dim``."""
    return ops.softmax(x, axis=dim)


class Methods(Operators):
    """What a tensor inherits: the table, by name."""

    __slots__ = ()

    abs = e.abs
    all = _all
    any = _any
    argmax = _argmax
    argmin = _argmin
    astype = e.astype
    clip = e.clip
    exp = e.exp
    expand = _expand
    flatten = ops.flatten
    log = e.log
    matmul = ops.matmul
    max = _max
    mean = _mean
    min = _min
    permute = _permute
    prod = _prod
    relu = e.relu
    reshape = _reshape
    sigmoid = e.sigmoid
    softmax = _softmax
    sqrt = e.sqrt
    squeeze = _squeeze
    std = _std
    sum = _sum
    tanh = e.tanh
    transpose = _transpose
    unsqueeze = _unsqueeze
    var = _var
    view = _reshape


def _ints(values: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) alike."""
    if len(values) == 1 and not isinstance(values[0], int):
        return tuple(values[0])
    return tuple([int(v) for v in values])  # type: ignore[arg-type]


def _axes(axis: Axis) -> int | tuple[int, ...] | None:
    return axis if axis is None or isinstance(axis, int) else tuple(axis)
