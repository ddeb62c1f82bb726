"""Power means of windows, and the way back from largest elements to their places."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import DTypeError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import product
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import pooling
from telegrad.ops import shape as s
from telegrad.ops.convolution import Sizes, sizes


def _lp_pool(axes: int, input: V, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool) -> V:
    if norm_type == 0:
        raise ShapeError(f"lp_pool{axes}d: norm_type must not be 0")
    kernel = sizes(kernel_size, axes, f"lp_pool{axes}d: kernel_size")
    pool = (pooling.avg_pool1d, pooling.avg_pool2d, pooling.avg_pool3d)[axes - 1]
    mean = pool(e.pow(input, norm_type), kernel, stride, 0, ceil_mode)
    return e.pow(e.sign(mean) * e.relu(e.abs(mean)) * product(kernel), 1.0 / norm_type)  # PyTorch's, at 0 too


def lp_pool1d(
    input: V, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> V:
    """(sum of x^p)^(1/p) over each window of input[N, C, L] with p = ``norm_type``; N may be missing.

    The stride is the window if not given.
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: V, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> V:
    """(sum of x^p)^(1/p) over each window of input[N, C, H, W]; see `lp_pool1d`."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: V, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None, ceil_mode: bool = False
) -> V:
    """(sum of x^p)^(1/p) over each window of input[N, C, D, H, W]; see `lp_pool1d`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_unpool(
    axes: int,
    input: V,
    indices: V,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    output_size: Sequence[int] | None,
) -> V:
    op = f"max_unpool{axes}d"
    if input.ndim not in (axes + 1, axes + 2) or indices.shape != input.shape:
        raise ShapeError(f"{op}({input.type}, {indices.type}): takes two tensors of {axes + 1} or {axes + 2} axes")
    if indices.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{op}: indices must be integers, not {indices.type}")
    kernel = sizes(kernel_size, axes, f"{op}: kernel_size")
    steps = kernel if stride is None else sizes(stride, axes, f"{op}: stride")
    around = sizes(padding, axes, f"{op}: padding")
    lead, shape = input.shape[:-axes], input.shape[-axes:]
    usual = tuple([(n - 1) * st + k - 2 * p for n, st, k, p in zip(shape, steps, kernel, around, strict=True)])
    size = usual if output_size is None else tuple(output_size)[-axes:]
    near = len(size) == axes and all(abs(n - u) < st for n, u, st in zip(size, usual, steps, strict=True))
    if not near or min(size) < 1:
        raise ShapeError(f"{op}: output_size {list(size)} must be within a stride {steps} of {list(usual)}")
    rows, room = product(lead), product(size)
    place = s.reshape(ix.CheckedIndex(room, wraps=False)(indices), (rows, product(shape)))
    row = place.bind(e.Iota((rows, 1), 0, t.int64), ())[0]
    nothing = s.broadcast_to(input.literal(0, input.dtype), (rows * room,))
    flat = ix.ScatterSet()(nothing, s.reshape(place + row * room, (-1,)), s.reshape(input, (-1,)))
    return s.reshape(flat, (*lead, *size))


def max_unpool1d(
    input: V,
    indices: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> V:
    """input[N, C, L] at the places that `max_pool1d` gave with ``return_indices``, zeros elsewhere; N may be missing.

    The size is the least that gives L windows, or ``output_size``. IndexRange for a place outside of it.
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: V,
    indices: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> V:
    """input[N, C, H, W] at the places that `max_pool2d` gave; see `max_unpool1d`."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: V,
    indices: V,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    output_size: Sequence[int] | None = None,
) -> V:
    """input[N, C, D, H, W] at the places that `max_pool3d` gave; see `max_unpool1d`."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
