"""The methods of a tensor that have NumPy's and PyTorch's names and positions, each a function of `telegrad.ops`.

Where the two libraries differ for one name, NumPy's meaning holds, which is also that of the array API's function:
``x.max(1)`` and ``x.sort()`` are the values alone, ``x.var()`` divides by n, ``x.repeat(2)`` repeats each element, and
``x.size`` is a number. ``x.transpose(0, 1)`` swaps, as in PyTorch. The class has no body but a table: a method that
takes its arguments as the function does is the function, and the others are written above it.
"""

from __future__ import annotations

from collections.abc import Sequence

from telegrad import ops, selecting
from telegrad.errors import AxisError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import DType, normalize_axis, product
from telegrad.ir.value import Number, Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops.shape import BroadcastTo

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


def _expand_as(x: V, other: V) -> V:
    """Broadcast to the shape of another."""
    return ops.broadcast_to(x, other.shape)


def _reshape_as(x: V, other: V) -> V:
    """The same elements under the shape of another."""
    return ops.reshape(x, other.shape)


def _contiguous(x: V) -> V:
    """x: its elements are always in C order."""
    return x


def _t(x: V) -> V:
    """The transpose of a matrix; a vector is its own."""
    if x.ndim > 2:
        raise ShapeError(f"t() takes at most two axes, not {x.type}; use transpose")
    return ops.matrix_transpose(x) if x.ndim == 2 else x


def _unflatten(x: V, dim: int, sizes: Sequence[int]) -> V:
    """One axis split into several, of which one may have size -1."""
    at = normalize_axis(dim, x.ndim, op="unflatten")
    known = product(n for n in sizes if n != -1)
    whole = [x.shape[at] // max(1, known) if n == -1 else n for n in sizes]
    return ops.reshape(x, (*x.shape[:at], *whole, *x.shape[at + 1 :]))


def _flip(x: V, *dims: int | Sequence[int]) -> V:
    """The elements in reverse order along axes: those named, or all."""
    return ops.flip(x, axis=_ints(dims) if dims else None)


def _roll(x: V, shifts: int | Sequence[int], dims: Axis = None) -> V:
    """The elements shifted along axes, or in C order, those pushed out at the end coming in at the front."""
    return ops.roll(x, shifts if isinstance(shifts, int) else tuple(shifts), axis=_axes(dims))


def _tile(x: V, *dims: int | Sequence[int]) -> V:
    """x repeated as a whole along each axis."""
    return ops.tile(x, _ints(dims))


def _repeat(x: V, repeats: int | Sequence[int] | V, *, axis: int | None = None) -> V:
    """Each element so many times, as in NumPy. PyTorch's ``repeat(2, 1)`` is ``tile(2, 1)``."""
    return ops.repeat(x, repeats, axis=axis)


def _repeat_interleave(x: V, repeats: int | Sequence[int] | V, dim: int | None = None) -> V:
    """Each element so many times along an axis, or of the flattened x."""
    return ops.repeat(x, repeats, axis=dim)


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


def _amax(x: V, dim: Axis = None, keepdim: bool = False) -> V:
    """The largest element over axes."""
    return ops.max(x, axis=_axes(dim), keepdims=keepdim)


def _amin(x: V, dim: Axis = None, keepdim: bool = False) -> V:
    """The smallest element over axes."""
    return ops.min(x, axis=_axes(dim), keepdims=keepdim)


def _count_nonzero(x: V, dim: Axis = None) -> V:
    """How many elements over axes are not zero, as int64."""
    return ops.count_nonzero(x, axis=_axes(dim))


def _logsumexp(x: V, dim: Axis, keepdim: bool = False) -> V:
    """log(sum(exp(x))) over axes, without overflow."""
    return ops.logsumexp(x, axis=_axes(dim), keepdims=keepdim)


def _norm(x: V, p: float | str = 2, dim: Axis = None, keepdim: bool = False) -> V:
    """The p-norm of the elements over axes; "fro" is 2, and "nuc" the nuclear norm of matrices."""
    from telegrad.ops import matrix_norms  # loads the decompositions

    if p == "nuc":
        axes = (-2, -1) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
        norm = matrix_norms.matrix_norm(ops.moveaxis(x, axes, (-2, -1)), ord="nuc", keepdims=keepdim)
        return ops.moveaxis(norm, (-2, -1), axes) if keepdim else norm
    order = 2 if p == "fro" else float(p)
    return matrix_norms.vector_norm(x, ord=order, axis=_axes(dim), keepdims=keepdim)


def _cumsum(x: V, axis: int | None = None, dtype: DType | None = None) -> V:
    """The running sums along an axis, or of the flattened x."""
    return ops.cumulative_sum(x if axis is not None else ops.reshape(x, (x.size,)), axis=axis, dtype=dtype)


def _cumprod(x: V, axis: int | None = None, dtype: DType | None = None) -> V:
    """The running products along an axis, or of the flattened x."""
    return ops.cumulative_prod(x if axis is not None else ops.reshape(x, (x.size,)), axis=axis, dtype=dtype)


def _diff(x: V, n: int = 1, dim: int = -1) -> V:
    """Each element minus the one before it along an axis, ``n`` times."""
    return ops.diff(x, axis=dim, n=n)


# ---- order


def _argsort(x: V, dim: int = -1, descending: bool = False) -> V:
    """The positions that sort x along an axis; equal elements keep their order."""
    return ops.argsort(x, axis=dim, descending=descending)


def _sort(x: V, dim: int = -1, descending: bool = False) -> V:
    """x sorted along an axis: the values alone, as in NumPy; `argsort` gives the positions."""
    return ops.sort(x, axis=dim, descending=descending)


def _topk(x: V, k: int, dim: int = -1, largest: bool = True) -> tuple[V, V]:
    """(the k largest or smallest elements along an axis in order, their positions)."""
    return ops.topk(x, k, axis=dim, largest=largest)


# ---- products of matrices


def _product(op: str, x: V, y: V, ranks: tuple[int, int]) -> V:
    if (x.ndim, y.ndim) != ranks:
        raise ShapeError(f"{op}({x.type}, {y.type}): takes {ranks[0]} and {ranks[1]} axes; matmul takes all")
    return ops.matmul(x, y)


def _dot(x: V, other: V) -> V:
    """The sum of the products of two vectors."""
    return _product("dot", x, other, (1, 1))


def _mv(x: V, vec: V) -> V:
    """The product of a matrix and a vector."""
    return _product("mv", x, vec, (2, 1))


def _mm(x: V, mat2: V) -> V:
    """The product of two matrices."""
    return _product("mm", x, mat2, (2, 2))


def _bmm(x: V, mat2: V) -> V:
    """The products of two stacks of matrices of one length."""
    if x.shape[:1] != mat2.shape[:1]:
        raise ShapeError(f"bmm({x.type}, {mat2.type}): takes stacks of one length; matmul broadcasts them")
    return _product("bmm", x, mat2, (3, 3))


def _diagonal(x: V, offset: int = 0, axis1: int = 0, axis2: int = 1) -> V:
    """The diagonal over two axes, which becomes the last axis."""
    return ops.linalg.diagonal(ops.moveaxis(x, (axis1, axis2), (-2, -1)), offset=offset)


def _trace(x: V, offset: int = 0, axis1: int = 0, axis2: int = 1) -> V:
    """The sum of the diagonal over two axes."""
    return ops.sum(_diagonal(x, offset, axis1, axis2), axis=-1)


def _tril(x: V, diagonal: int = 0) -> V:
    """The elements on and below a diagonal of each matrix, zeros above."""
    return ops.tril(x, k=diagonal)


def _triu(x: V, diagonal: int = 0) -> V:
    """The elements on and above a diagonal of each matrix, zeros below."""
    return ops.triu(x, k=diagonal)


# ---- elements


def _rsqrt(x: V) -> V:
    """1 / sqrt(x)."""
    return e.reciprocal(e.sqrt(x))


def _log_softmax(x: V, dim: int = -1) -> V:
    """x less the logarithm of the sum of exp(x) along ``dim``."""
    return ops.log_softmax(x, axis=dim)


def _softmax(x: V, dim: int = -1) -> V:
    """exp(x) over its sum along ``dim``."""
    return ops.softmax(x, axis=dim)


# ---- dtypes


def _double(x: V) -> V:
    """The elements as float64."""
    return e.astype(x, t.float64, copy=False)


def _float(x: V) -> V:
    """The elements as float32."""
    return e.astype(x, t.float32, copy=False)


def _half(x: V) -> V:
    """The elements as float16."""
    return e.astype(x, t.float16, copy=False)


def _bfloat16(x: V) -> V:
    """The elements as bfloat16."""
    return e.astype(x, t.bfloat16, copy=False)


def _long(x: V) -> V:
    """The elements as int64."""
    return e.astype(x, t.int64, copy=False)


def _int(x: V) -> V:
    """The elements as int32."""
    return e.astype(x, t.int32, copy=False)


def _bool(x: V) -> V:
    """Whether each element is not zero."""
    return e.astype(x, t.bool_, copy=False)


def _type_as(x: V, other: V) -> V:
    """The elements in the dtype of another."""
    return e.astype(x, other.dtype, copy=False)


def _is_floating_point(x: Operators) -> bool:
    """Whether the dtype is one that has derivatives."""
    return x.dtype.is_float


def _element_size(x: Operators) -> int:
    """The bytes of one element."""
    return x.dtype.itemsize


def _numel(x: Operators) -> int:
    """The number of elements."""
    return x.size


def _dim(x: Operators) -> int:
    """The number of axes."""
    return x.ndim


# ---- new tensors beside this one


def _new_full(x: V, size: int | Sequence[int], fill_value: Number, *, dtype: DType | None = None) -> V:
    """A tensor of a shape, in this one's dtype unless another is given, filled with one number."""
    return BroadcastTo(_ints((size,)))(x.literal(fill_value, dtype or x.dtype))


def _new_zeros(x: V, *size: int | Sequence[int], dtype: DType | None = None) -> V:
    """Zeros of a shape, in this one's dtype unless another is given."""
    return _new_full(x, _ints(size), 0, dtype=dtype)


def _new_ones(x: V, *size: int | Sequence[int], dtype: DType | None = None) -> V:
    """Ones of a shape, in this one's dtype unless another is given."""
    return _new_full(x, _ints(size), 1, dtype=dtype)


class Methods(Operators):
    """What a tensor inherits: the table, by name."""

    __slots__ = ()

    abs = e.abs
    acos = e.acos
    acosh = e.acosh
    add = e.add
    all = _all
    amax = _amax
    amin = _amin
    any = _any
    argmax = _argmax
    argmin = _argmin
    argsort = _argsort
    asin = e.asin
    asinh = e.asinh
    astype = e.astype
    atan = e.atan
    atan2 = e.atan2
    atanh = e.atanh
    bfloat16 = _bfloat16
    bmm = _bmm
    bool = _bool
    ceil = e.ceil
    chunk = selecting.chunk
    clamp = e.clip
    clip = e.clip
    conj = ops.conj
    contiguous = _contiguous
    cos = e.cos
    cosh = e.cosh
    count_nonzero = _count_nonzero
    cumprod = _cumprod
    cumsum = _cumsum
    diag = ops.diag
    diagonal = _diagonal
    diff = _diff
    dim = _dim
    div = e.divide
    dot = _dot
    double = _double
    element_size = _element_size
    eq = e.equal
    erf = e.erf
    exp = e.exp
    expand = _expand
    expand_as = _expand_as
    expm1 = e.expm1
    flatten = ops.flatten
    flip = _flip
    float = _float
    floor = e.floor
    gather = selecting.gather
    ge = e.greater_equal
    gt = e.greater
    half = _half
    index_select = selecting.index_select
    int = _int
    is_floating_point = _is_floating_point
    isfinite = e.isfinite
    isinf = e.isinf
    isnan = e.isnan
    le = e.less_equal
    log = e.log
    log10 = e.log10
    log1p = e.log1p
    log2 = e.log2
    log_softmax = _log_softmax
    logical_and = e.logical_and
    logical_not = e.logical_not
    logical_or = e.logical_or
    logical_xor = e.logical_xor
    logsumexp = _logsumexp
    long = _long
    lt = e.less
    masked_fill = selecting.masked_fill
    masked_select = selecting.masked_select
    matmul = ops.matmul
    max = _max
    maximum = e.maximum
    mean = _mean
    min = _min
    minimum = e.minimum
    mm = _mm
    moveaxis = ops.moveaxis
    movedim = ops.moveaxis
    mul = e.multiply
    mv = _mv
    narrow = selecting.narrow
    ne = e.not_equal
    neg = e.negative
    new_full = _new_full
    new_ones = _new_ones
    new_zeros = _new_zeros
    nonzero = ops.nonzero
    norm = _norm
    numel = _numel
    outer = ops.outer
    permute = _permute
    pow = e.pow
    prod = _prod
    ravel = ops.flatten
    reciprocal = e.reciprocal
    relu = e.relu
    remainder = e.remainder
    repeat = _repeat
    repeat_interleave = _repeat_interleave
    reshape = _reshape
    reshape_as = _reshape_as
    roll = _roll
    round = e.round
    rsqrt = _rsqrt
    scatter = selecting.scatter
    scatter_add = selecting.scatter_add
    select = selecting.select
    sigmoid = e.sigmoid
    sign = e.sign
    sin = e.sin
    sinh = e.sinh
    softmax = _softmax
    sort = _sort
    split = selecting.split
    sqrt = e.sqrt
    square = e.square
    squeeze = _squeeze
    std = _std
    sub = e.subtract
    sum = _sum
    swapaxes = _transpose
    t = _t
    take = selecting.take
    tan = e.tan
    tanh = e.tanh
    tile = _tile
    topk = _topk
    trace = _trace
    transpose = _transpose
    tril = _tril
    triu = _triu
    trunc = e.trunc
    type_as = _type_as
    unbind = selecting.unbind
    unflatten = _unflatten
    unsqueeze = _unsqueeze
    var = _var
    view = _reshape
    view_as = _reshape_as
    where = selecting.where


def _ints(values: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) alike."""
    if len(values) == 1 and not isinstance(values[0], int):
        return tuple(values[0])
    return tuple([int(v) for v in values])  # type: ignore[arg-type]


def _axes(axis: Axis) -> int | tuple[int, ...] | None:
    return axis if axis is None or isinstance(axis, int) else tuple(axis)
