"""Max pooling by windows that lie at random, nearly equal distances (Graham 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import shape as s
from telegrad.ops.index import take_along_axis
from telegrad.ops.reduce import argmax


def fractional_max_pool(
    input: V, samples: V, kernel_size: Sequence[int], output_size: Sequence[int], op: str
) -> tuple[V, V]:
    """(the largest element of each window of input[N, C, *size], its place in the channel in C order).

    samples[N, C, k] from [0, 1) say where an axis's windows begin (equation 1). Windows may overlap.
    """
    axes = len(kernel_size)
    size = input.shape[2:]
    if samples.shape != (*input.shape[:2], axes):
        raise ShapeError(f"{op}({input.type}): the samples must be {[*input.shape[:2], axes]}, not {samples.type}")
    if any(p < 1 or m < 1 or m + p - 1 > n for n, p, m in zip(size, kernel_size, output_size, strict=True)):
        raise ShapeError(
            f"{op}({input.type}): {list(output_size)} windows of {list(kernel_size)} do not fit; an axis of n elements"
            " has at most n + 1 less the window"
        )
    values: V = input
    places: V | None = None
    order = range(axes) if axes == 3 else (1, 0)  # PyTorch's: the width is the first of two samples
    for axis, (n, p, m) in enumerate(zip(size, kernel_size, output_size, strict=True)):
        index = _windows(samples[..., order[axis]], n, p, m)
        wide = s.reshape(index, (*index.shape[:2], *(index.shape[2] if a == axis else 1 for a in range(axes))))
        values = take_along_axis(values, wide, axis=2 + axis)
        places = wide if places is None else places * n + wide
    assert places is not None
    split = [n for p, m in zip(kernel_size, output_size, strict=True) for n in (m, p)]
    windows, where = (_joined(x, split, axes) for x in (values, s.broadcast_to(places, values.shape)))
    best = s.expand_dims(argmax(windows, axis=-1), axis=-1)
    found, at = (s.squeeze(take_along_axis(x, best, axis=-1), axis=-1) for x in (windows, where))
    return found, at


def _windows(sample: V, n: int, p: int, m: int) -> V:
    """The elements of m windows of p out of n, one window after the other: [N, C, m * p]."""
    each = s.reshape(sample.bind(e.Iota((m,), 0, t.int64), ())[0], (1, 1, m))
    step = (n - p) / (m - 1) if m > 1 else 0.0
    offset = s.expand_dims(sample, axis=-1)
    begin = e.floor((offset + e.astype(each, sample.dtype)) * step) - e.floor(offset * step)
    begin = e.where(e.equal(each, m - 1), n - p, e.astype(begin, t.int64))
    inner = sample.bind(e.Iota((p,), 0, t.int64), ())[0]
    return s.reshape(s.expand_dims(begin, axis=-1) + inner, (*sample.shape, m * p))


def _joined(x: V, split: Sequence[int], axes: int) -> V:
    """[N, C, m * p, ...] -> [N, C, m, ..., all elements of a window]."""
    wide = s.reshape(x, (*x.shape[:2], *split))
    order = (0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2))
    return s.reshape(s.permute_dims(wide, order), (*x.shape[:2], *split[::2], -1))


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
