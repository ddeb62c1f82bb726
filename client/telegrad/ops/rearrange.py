"""Moves between channels, space and windows: pixel and channel shuffles, unfold and fold."""

from __future__ import annotations

from telegrad.errors import ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import product
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import shape as s
from telegrad.ops.convolution import Sizes, positions, sizes


def pixel_shuffle(input: V, upscale_factor: int) -> V:
    """input[..., C r^2, H, W] -> [..., C, H r, W r] (Shi et al. 2016, section 3.2)."""
    factor = upscale_factor
    if factor < 1 or input.ndim < 3 or input.shape[-3] % factor**2:
        raise ShapeError(f"pixel_shuffle({input.type}): takes [..., C * {factor}^2, H, W] and a positive factor")
    *lead, c, h, w = input.shape
    n = len(lead)
    split = s.reshape(input, (*lead, c // factor**2, factor, factor, h, w))
    moved = s.permute_dims(split, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return s.reshape(moved, (*lead, c // factor**2, h * factor, w * factor))


def pixel_unshuffle(input: V, downscale_factor: int) -> V:
    """input[..., C, H r, W r] -> [..., C r^2, H, W]: the inverse of `pixel_shuffle`."""
    factor = downscale_factor
    if factor < 1 or input.ndim < 3 or input.shape[-2] % factor or input.shape[-1] % factor:
        raise ShapeError(f"pixel_unshuffle({input.type}): height and width must be divisible by {factor}")
    *lead, c, h, w = input.shape
    n = len(lead)
    split = s.reshape(input, (*lead, c, h // factor, factor, w // factor, factor))
    moved = s.permute_dims(split, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return s.reshape(moved, (*lead, c * factor**2, h // factor, w // factor))


def channel_shuffle(input: V, groups: int) -> V:
    """input[N, C, ...] with its channels, dealt out to ``groups``, in the order of a deal (Zhang et al. 2018)."""
    if groups < 1 or input.ndim < 3 or input.shape[1] % groups:
        raise ShapeError(f"channel_shuffle({input.type}): takes [N, C, ...] with C divisible into {groups} groups")
    n, c, *rest = input.shape
    split = s.reshape(input, (n, groups, c // groups, *rest))
    return s.reshape(s.moveaxis(split, 1, 2), input.shape)


def _places(x: V, kernel: int, count: int, stride: int, apart: int) -> V:
    """The place of tap k of window i along an axis, as int64[kernel * count]."""
    tap = x.bind(e.Iota((kernel, 1), 0, t.int64), ())[0]
    window = x.bind(e.Iota((count,), 0, t.int64), ())[0]
    return s.reshape(tap * apart + window * stride, (kernel * count,))


def unfold(input: V, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1) -> V:
    """The windows of input[N, C, H, W] as columns -> [N, C * kernel, windows]; N may be missing."""
    op = "unfold"
    if input.ndim not in (3, 4):
        raise ShapeError(f"{op}({input.type}): takes [N, C, H, W] or [C, H, W]")
    kernel, apart = sizes(kernel_size, 2, f"{op}: kernel_size"), sizes(dilation, 2, f"{op}: dilation")
    around, steps = sizes(padding, 2, f"{op}: padding"), sizes(stride, 2, f"{op}: stride")
    x = input if input.ndim == 4 else s.expand_dims(input, axis=0)
    out = positions(op, x.shape[2:], kernel, steps, around, around, apart)
    if min(out) < 1:
        raise ShapeError(f"{op}({input.type}): no window of {kernel} fits")
    x = s.pad(x, [(0, 0), (0, 0), *((p, p) for p in around)])
    for axis in (0, 1):
        x = ix.take(x, _places(x, kernel[axis], out[axis], steps[axis], apart[axis]), axis=axis + 2)
    n, c = x.shape[:2]
    split = s.reshape(x, (n, c, kernel[0], out[0], kernel[1], out[1]))
    columns = s.reshape(s.permute_dims(split, (0, 1, 2, 4, 3, 5)), (n, c * product(kernel), product(out)))
    return columns if input.ndim == 4 else s.squeeze(columns, axis=0)


def fold(
    input: V, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> V:
    """The columns of input[N, C * kernel, windows] added up where they come from -> [N, C, *output_size].

    The transpose of `unfold`; N may be missing.
    """
    op = "fold"
    size, kernel = sizes(output_size, 2, f"{op}: output_size"), sizes(kernel_size, 2, f"{op}: kernel_size")
    apart, around = sizes(dilation, 2, f"{op}: dilation"), sizes(padding, 2, f"{op}: padding")
    steps = sizes(stride, 2, f"{op}: stride")
    out = positions(op, size, kernel, steps, around, around, apart)
    if input.ndim not in (2, 3) or input.shape[-2] % product(kernel) or input.shape[-1] != product(out):
        raise ShapeError(
            f"{op}({input.type}): takes [N, C * {product(kernel)}, {product(out)}] or the same without a batch"
        )
    x = input if input.ndim == 3 else s.expand_dims(input, axis=0)
    n, c = x.shape[0], x.shape[1] // product(kernel)
    split = s.permute_dims(s.reshape(x, (n, c, *kernel, *out)), (0, 1, 2, 4, 3, 5))
    x = s.reshape(split, (n, c, kernel[0] * out[0], kernel[1] * out[1]))
    for axis in (0, 1):
        place = _places(x, kernel[axis], out[axis], steps[axis], apart[axis])
        rows = s.moveaxis(x, axis + 2, 0)
        x = s.moveaxis(ix.scatter_add(rows, place, rows=size[axis] + 2 * around[axis]), 0, axis + 2)
    x = x[:, :, around[0] : around[0] + size[0], around[1] : around[1] + size[1]]
    return x if input.ndim == 3 else s.squeeze(x, axis=0)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
