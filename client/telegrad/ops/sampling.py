"""Sampling at given places: grids of places from affine maps, and the values of an input there.

A place is one number for each axis, the last axis first, from -1 to 1 over the input. Values are sums of a few gathers
of rows with weights made from the places, so both the input and the grid have gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops import shape as s
from telegrad.ops.index import Gather
from telegrad.ops.interpolation import cubic_weights
from telegrad.ops.linalg import matmul

Tap = tuple[V, V | None]
"""A place along one axis, which is a whole number, and its weight if that is not 1."""


def affine_grid(theta: V, size: Sequence[int], align_corners: bool = False) -> V:
    """The grid for `grid_sample` of affine maps theta[N, k, k + 1]: [N, *spatial, k], for an output of ``size``.

    ``size`` is [N, C, H, W] or [N, C, D, H, W]. With ``align_corners`` -1 and 1 are the middles of the outermost
    elements, otherwise their outer edges.
    """
    axes = len(size) - 2
    if axes not in (2, 3) or theta.shape != (size[0], axes, axes + 1):
        raise ShapeError(
            f"affine_grid({theta.type}): for the size {list(size)}, which must have 4 or 5 axes, theta must be"
            f" [{size[0] if size else 'N'}, {max(axes, 0)}, {max(axes, 0) + 1}]"
        )
    spatial = tuple(size[2:])
    columns: list[V] = []
    for axis in reversed(range(axes)):
        n = spatial[axis]
        line = e.astype(theta.bind(e.Iota((n,), 0, t.int64), ())[0], theta.dtype)
        line = line * (2 / max(n - 1, 1)) - (1 if n > 1 else 0)
        line = line if align_corners else line * ((n - 1) / n)
        wide = s.reshape(line, tuple(n if a == axis else 1 for a in range(axes)))
        columns.append(s.broadcast_to(wide, spatial))
    columns.append(s.ones_like(columns[0]))
    places = s.reshape(s.stack(columns, axis=-1), (1, -1, axes + 1))
    return s.reshape(matmul(places, s.matrix_transpose(theta)), (size[0], *spatial, axes))


def grid_sample(
    input: V, grid: V, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> V:
    """input[N, C, *size] at the places grid[N, *out, k] -> [N, C, *out], of k = 2 or 3 axes.

    ``mode`` is "bilinear", "nearest" (halves to the even one) or, for two axes, "bicubic" (Keys 1981, a = -0.75).
    Outside the input are zeros, or with ``padding_mode`` "border" the outermost element, or "reflection" the input
    mirrored. ``align_corners`` as in `affine_grid`, false if not given.
    """
    axes = input.ndim - 2
    if axes not in (2, 3) or grid.shape[:1] != input.shape[:1] or grid.ndim != input.ndim or grid.shape[-1] != axes:
        raise ShapeError(
            f"grid_sample({input.type}, {grid.type}): takes [N, C, H, W] and [N, H, W, 2], or one axis more and 3"
        )
    if mode not in ("bilinear", "nearest", "bicubic") or (mode == "bicubic" and axes == 3):
        raise GraphError(f"grid_sample: mode is 'bilinear', 'nearest' or for two axes 'bicubic', not {mode!r}")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise GraphError(f"grid_sample: padding_mode is 'zeros', 'border' or 'reflection', not {padding_mode!r}")
    if 0 in input.shape[2:]:
        raise ShapeError(f"grid_sample({input.type}): the input has no element to sample")
    input, grid = e.common(input, grid)
    taps: list[list[Tap[V]]] = []
    for axis, n in enumerate(input.shape[2:]):
        place = grid[..., axes - 1 - axis]
        at = (place + 1) * ((n - 1) / 2) if align_corners else ((place + 1) * n - 1) * 0.5
        if mode != "bicubic":
            at = _inside(at, n, padding_mode, bool(align_corners))
        if mode == "nearest":
            taps.append([(e.round(at), None)])
        elif mode == "bilinear":
            low = e.floor(at)
            taps.append([(low, low + 1 - at), (low + 1, at - low)])
        else:
            low = e.floor(at)
            places = [_inside(low + k, n, padding_mode, bool(align_corners)) for k in (-1, 0, 1, 2)]
            taps.append(list(zip(places, cubic_weights(at - low), strict=True)))
    return _weighted(input, taps)


def _inside(at: V, n: int, padding_mode: str, align_corners: bool) -> V:
    """Places outside 0 to n - 1 moved into it, if the padding says so."""
    if padding_mode == "zeros":
        return at
    if padding_mode == "reflection":
        low, span = (0.0, float(n - 1)) if align_corners else (-0.5, float(n))
        if span == 0:
            return at * 0
        away = e.abs(at - low)
        rest = away % span
        is_even = e.equal(e.floor(away / span) % 2, 0)
        at = e.where(is_even, rest, span - rest) + low
    return e.clip(at, 0, n - 1)


def _weighted(input: V, taps: Sequence[Sequence[Tap[V]]]) -> V:
    """The sum over all combinations of the axes' taps: the input's elements there, times the weights' product."""
    batch, channels, *spatial = input.shape
    rows = s.reshape(s.moveaxis(input, 1, -1), (-1, channels))
    first = taps[0][0][0]
    sample = s.reshape(input.bind(e.Iota((batch,), 0, t.int64), ())[0], (batch, *(1,) * (first.ndim - 1)))
    out: V | None = None
    for combination in product(*taps):
        index, weight, is_inside = sample, None, None
        for (place, factor), n in zip(combination, spatial, strict=True):
            here = (place >= 0) & (place <= n - 1)
            is_inside = here if is_inside is None else is_inside & here
            index = index * n + e.astype(e.where(here, place, 0), t.int64)
            weight = factor if weight is None else weight if factor is None else weight * factor
        assert is_inside is not None
        kept = e.where(is_inside, 1 if weight is None else weight, input.literal(0, input.dtype))
        part = Gather()(rows, index) * s.expand_dims(kept, axis=-1)
        out = part if out is None else out + part
    assert out is not None
    return s.moveaxis(out, -1, 1)


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
