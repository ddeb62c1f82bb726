"""Convolution as products of matrices over windows (im2col), for any library with NumPy's interface.

The samples go through in slices of about `SLICE_BYTES` of windows; how many depends on shapes alone, so the bits do
not depend on the machine's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

Array = Any
Sizes = tuple[int, ...]

SLICE_BYTES = 8 << 20


def padded(lib: Any, x: Array, before: Sizes, after: Sizes) -> Array:
    """x[N, C, *size] with zeros around each of the last axes."""
    if not any((*before, *after)):
        return x
    return lib.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)))


def windows(lib: Any, x: Array, kernel: Sizes, out: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """A view [N, C, *kernel, *out] of the windows of a padded x[N, C, *size]."""
    steps = x.strides[2:]
    return lib.lib.stride_tricks.as_strided(
        x,
        (*x.shape[:2], *kernel, *out),
        (
            *x.strides[:2],
            *(step * d for step, d in zip(steps, dilation, strict=True)),
            *(step * st for step, st in zip(steps, stride, strict=True)),
        ),
    )


def _slices(samples: int, bytes_each: int) -> Iterator[slice]:
    step = max(1, SLICE_BYTES // max(1, bytes_each))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def _positions(size: Sizes, kernel: Sizes, stride: Sizes, before: Sizes, after: Sizes, dilation: Sizes) -> Sizes:
    return tuple(
        (n + b + a - d * (k - 1) - 1) // st + 1
        for n, k, st, b, a, d in zip(size, kernel, stride, before, after, dilation, strict=True)
    )


def convolution(
    lib: Any, x: Array, weight: Array, *, stride: Sizes, before: Sizes, after: Sizes, dilation: Sizes, groups: int
) -> Array:
    """x[N, C, *size], weight[O, C / groups, *kernel] -> [N, O, *positions]."""
    samples, channels, *size = x.shape
    outputs, inner, *kernel = weight.shape
    out = _positions(tuple(size), tuple(kernel), stride, before, after, dilation)
    x = padded(lib, x, before, after)
    view = windows(lib, x, tuple(kernel), out, stride, dilation)
    matrix = weight.reshape(groups, outputs // groups, inner * prod(kernel))
    y = lib.empty((samples, groups, outputs // groups, prod(out)), x.dtype)
    for part in _slices(samples, channels * prod(kernel) * prod(out) * x.dtype.itemsize):
        columns = view[part].reshape(part.stop - part.start, groups, inner * prod(kernel), prod(out))  # a copy
        lib.matmul(matrix, columns, out=y[part])
    return y.reshape(samples, outputs, *out)


def convolution_input(
    lib: Any,
    y: Array,
    weight: Array,
    *,
    size: Sizes,
    stride: Sizes,
    before: Sizes,
    after: Sizes,
    dilation: Sizes,
    groups: int,
) -> Array:
    """y[N, O, *positions], weight[O, C / groups, *kernel] -> x[N, C, *size]: each window's share added up."""
    samples, outputs, *out = y.shape
    _, inner, *kernel = weight.shape
    channels = inner * groups
    x = lib.zeros((samples, channels, *(n + b + a for n, b, a in zip(size, before, after, strict=True))), y.dtype)
    matrix = weight.reshape(groups, outputs // groups, inner * prod(kernel)).swapaxes(1, 2)
    rows = y.reshape(samples, groups, outputs // groups, prod(out))
    for part in _slices(samples, channels * prod(kernel) * prod(out) * y.dtype.itemsize):
        shares = lib.matmul(matrix, rows[part]).reshape(part.stop - part.start, channels, *kernel, *out)
        target = x[part]
        for offset in np.ndindex(*kernel):
            places = tuple(
                slice(o * d, o * d + st * (n - 1) + 1 if n else o * d, st)
                for o, d, st, n in zip(offset, dilation, stride, out, strict=True)
            )
            target[(slice(None), slice(None), *places)] += shares[(slice(None), slice(None), *offset)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, size, strict=True))
    return x[(slice(None), slice(None), *inside)]


def convolution_weight(
    lib: Any,
    x: Array,
    y: Array,
    *,
    kernel: Sizes,
    stride: Sizes,
    before: Sizes,
    after: Sizes,
    dilation: Sizes,
    groups: int,
) -> Array:
    """x[N, C, *size], y[N, O, *positions] -> weight[O, C / groups, *kernel], summed over samples and positions."""
    samples, channels = x.shape[:2]
    _, outputs, *out = y.shape
    inner = channels // groups
    view = windows(lib, padded(lib, x, before, after), kernel, tuple(out), stride, dilation)
    axes = len(kernel)
    order = (1, *range(2, 2 + axes), 0, *range(2 + axes, 2 + 2 * axes))  # [C, *kernel, N, *out]
    weight = lib.zeros((groups, outputs // groups, inner * prod(kernel)), x.dtype)
    for part in _slices(samples, channels * prod(kernel) * prod(out) * x.dtype.itemsize):
        count = (part.stop - part.start) * prod(out)
        columns = view[part].transpose(order).reshape(groups, inner * prod(kernel), count)  # a copy
        rows = y[part].swapaxes(0, 1).reshape(groups, outputs // groups, count)
        weight += lib.matmul(rows, columns.swapaxes(1, 2))
    return weight.reshape(outputs, inner, *kernel)


def window_argmax(
    lib: Any, x: Array, *, kernel: Sizes, stride: Sizes, before: Sizes, after: Sizes, dilation: Sizes
) -> Array:
    """The place of the first largest element (or NaN) of each window of x[N, C, *size], flat within size, as int64.

    What lies outside x is no element: a window has at least one inside.
    """
    size = x.shape[2:]
    out = _positions(size, kernel, stride, before, after, dilation)
    is_padded = any(before) or any(after)
    lowest = -np.inf if x.dtype.kind not in "iub" else (np.iinfo(x.dtype).min if x.dtype.kind in "iu" else False)
    wide = lib.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)), constant_values=lowest) if is_padded else x
    corner = [np.arange(n) * st - b for n, st, b in zip(out, stride, before, strict=True)]
    inside = [np.where(p < 0, -(p // d), 0) for p, d in zip(corner, dilation, strict=True)]
    best = lib.full((*x.shape[:2], *out), lowest, x.dtype)
    number = np.min_scalar_type(prod(kernel) - 1)  # of an element within its window: few bytes to go through
    which = lib.empty(best.shape, number)
    which[...] = lib.asarray(_flat(inside, kernel).astype(number))
    for k, offset in enumerate(np.ndindex(*kernel)):
        places = tuple(
            slice(o * d, o * d + st * (n - 1) + 1 if n else o * d, st)
            for o, d, st, n in zip(offset, dilation, stride, out, strict=True)
        )
        candidate = wide[(slice(None), slice(None), *places)]
        if stride[-1] != 1:
            candidate = lib.ascontiguousarray(candidate)  # it is read twice
        if x.dtype.kind in "iub":
            better = candidate > best
        else:  # NaN is better than every number, and nothing than NaN
            better = lib.logical_not(candidate <= best)
            better &= best == best
        lib.maximum(best, candidate, out=best)
        lib.maximum(
            which, better.astype(number) * number.type(k), out=which
        )  # k grows, so this is k where it is better
    offsets = [np.arange(k) * d for k, d in zip(kernel, dilation, strict=True)]
    table = lib.asarray(np.ascontiguousarray(np.broadcast_to(_flat(offsets, size), kernel)).reshape(-1))
    place = lib.take(table, which)
    place += lib.asarray(_flat(corner, size))
    return place


def _flat(axes: list[Any], size: Sizes) -> Any:
    """Positions along each axis as one number in C order."""
    total: Any = np.zeros((), np.int64)
    for i, (position, n) in enumerate(zip(axes, size, strict=True)):
        total = total * n + position.reshape(-1, *(1,) * (len(axes) - 1 - i))
    return total
