"""Making tensors: from arrays and numbers, and the array API's creation functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from telegrad import context
from telegrad.errors import DTypeError, GraphError
from telegrad.ir import types
from telegrad.ir.types import DType, check_shape
from telegrad.ir.value import Number
from telegrad.ops import elementwise
from telegrad.ops.shape import BroadcastTo, stack
from telegrad.tensor import Tensor
from telegrad.wire.arrays import from_numpy_dtype, numpy_dtype

if TYPE_CHECKING:
    import numpy.typing as npt

    from telegrad.session import Session


def asarray(obj: Any, /, *, dtype: DType | None = None, device: str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor with the contents that ``obj`` has now: a NumPy array, numbers in nested lists, or a tensor.

    Python floats become float32 and Python integers int64; NumPy arrays keep their dtype. A list of tensors is stacked.
    Of a tensor ``copy`` decides whether the result is another handle, which ``x[i] = y`` on the first leaves alone; all
    else is copied, and ``copy=False`` a ValueError. Raises DTypeError for elements that are not offered (complex,
    object, strings, dates).
    """
    if isinstance(obj, Tensor):
        if device is not None:
            obj.to_device(device)
        if copy is False and dtype not in (None, obj.dtype):
            raise ValueError(f"asarray: a {obj.type} becomes {dtype} only by a copy; leave copy out")
        return elementwise.astype(obj, dtype or obj.dtype, copy=bool(copy))
    if copy is False:
        raise ValueError(f"asarray: a {type(obj).__name__} is copied to the server; leave copy out")
    session = _session(device)
    if isinstance(obj, (list, tuple)) and _holds_tensor(obj):  # pyright: ignore[reportUnknownArgumentType]
        stacked = _stacked(obj)  # pyright: ignore[reportUnknownArgumentType]
        return stacked if dtype is None else elementwise.astype(stacked, dtype)
    return session.from_numpy(_array(obj, dtype))


tensor = asarray


def _session(device: str | None) -> Session:
    session = context.current_session()
    if device is not None and device != session.backend:
        raise GraphError(f"this session's device is {session.backend!r}, not {device!r}")
    return session


def _stacked(nest: Sequence[Any]) -> Tensor:
    """A nest of tensors and numbers as one tensor, through which gradients flow."""
    parts = [_stacked(x) if isinstance(x, (list, tuple)) else x for x in nest]  # pyright: ignore[reportUnknownArgumentType]
    if not any(isinstance(x, Tensor) for x in parts):
        return asarray(parts)
    return stack(elementwise.common(*parts))


def _array(obj: Any, dtype: DType | None) -> npt.NDArray[Any]:
    if isinstance(obj, (np.ndarray, np.generic)) or hasattr(obj, "__array__") or hasattr(obj, "__dlpack__"):
        array = np.asarray(obj)
        wanted = from_numpy_dtype(array.dtype) if dtype is None else dtype
    else:
        try:
            array = np.asarray(obj)
        except ValueError as error:
            raise DTypeError(f"asarray takes a rectangular nest of numbers: {error}") from None
        if array.dtype.kind not in "biuf":
            raise DTypeError(f"asarray takes numbers, not {type(obj).__name__} of {array.dtype}")
        default = {"b": types.bool_, "f": types.float32}.get(array.dtype.kind, types.int64)
        wanted = dtype or (types.float32 if array.size == 0 and array.dtype.kind == "f" else default)
        if array.dtype.kind == "u" and dtype is None:
            wanted = types.uint64
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(numpy_dtype(wanted), copy=False)


def _holds_tensor(nest: Sequence[Any]) -> bool:
    return any(
        isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _holds_tensor(x))  # pyright: ignore[reportUnknownArgumentType]
        for x in nest
    )


def _shape(shape: int | Sequence[int], op: str) -> tuple[int, ...]:
    return check_shape((shape,) if isinstance(shape, int) else tuple(int(s) for s in shape), op=op)


def full(
    shape: int | Sequence[int], fill_value: Number, *, dtype: DType | None = None, device: str | None = None
) -> Tensor:
    """A tensor filled with one number; float32, int64 or bool if no dtype is given."""
    if dtype is None:
        kind = type(fill_value)
        dtype = types.bool_ if kind is bool else types.int64 if kind is int else types.float32
    home = context.TRACE.get() or _session(device)
    return BroadcastTo(_shape(shape, "full"))(home.number(fill_value, dtype))


def zeros(shape: int | Sequence[int], *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """A tensor of zeros, float32 if no dtype is given."""
    return full(_shape(shape, "zeros"), 0, dtype=dtype or types.float32, device=device)


def ones(shape: int | Sequence[int], *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """A tensor of ones, float32 if no dtype is given."""
    return full(_shape(shape, "ones"), 1, dtype=dtype or types.float32, device=device)


def empty(shape: int | Sequence[int], *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """A tensor of zeros: memory that nobody has written is never shown."""
    return zeros(shape, dtype=dtype, device=device)


def arange(
    start: Number,
    /,
    stop: Number | None = None,
    step: Number = 1,
    *,
    dtype: DType | None = None,
    device: str | None = None,
) -> Tensor:
    """The numbers from ``start`` (0 if only one is given) up to and without ``stop``, by ``step``."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise GraphError("arange: step must not be 0")
    is_float = any(isinstance(x, float) for x in (start, stop, step))
    dtype = dtype or (types.float32 if is_float else types.int64)
    return asarray(np.arange(start, stop, step).astype(numpy_dtype(dtype)), device=device)


def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    endpoint: bool = True,
) -> Tensor:
    """``num`` numbers at equal distances from ``start`` to ``stop``."""
    line = np.linspace(start, stop, num, endpoint=endpoint)
    return asarray(line.astype(numpy_dtype(dtype or types.float32)), device=device)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DType | None = None, device: str | None = None
) -> Tensor:
    """A matrix with ones on the k-th diagonal."""
    return asarray(np.eye(n_rows, n_cols, k=k, dtype=numpy_dtype(dtype or types.float32)), device=device)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """A tensor with the contents of any array that speaks DLPack. BufferError for ``copy=False`` of a foreign one."""
    if isinstance(x, Tensor):
        return asarray(x, device=device, copy=copy)
    if copy is False:
        raise BufferError("from_dlpack: the elements are copied to the server; leave copy out")
    return asarray(np.from_dlpack(x), device=device)


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Coordinate grids from 1-d coordinates."""
    if indexing not in ("xy", "ij"):
        raise GraphError(f"meshgrid: indexing must be 'xy' or 'ij', not {indexing!r}")
    from telegrad import ops

    order = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(arrays[i].size for i in order)
    grids: list[Tensor] = []
    for i, x in enumerate(arrays):
        axis = order.index(i)
        grids.append(ops.broadcast_to(ops.reshape(x, tuple(-1 if j == axis else 1 for j in range(len(shape)))), shape))
    return grids
