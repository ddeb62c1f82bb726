"""Resampling to another size: along each axis a sum of a few gathers with weights, both made from the places.

A place i of the output lies at scale * (i + 1/2) - 1/2 of the input, with ``align_corners`` at i (n - 1) / (m - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.types import Shape
from telegrad.ir.value import Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops import index as ix
from telegrad.ops import pooling
from telegrad.ops import shape as s

AXES: dict[str, tuple[int, ...]] = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3),
    "linear": (1,), "bilinear": (2,), "trilinear": (3,), "bicubic": (2,),
}  # fmt: skip
"""The modes, and over how many axes they go."""

Factors = float | Sequence[float]


def interpolate(
    input: V,
    size: int | Sequence[int] | None = None,
    scale_factor: Factors | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> V:
    """input[N, C, *size] resampled to ``size`` or to ``scale_factor`` times its size, as PyTorch does.

    ``mode`` is "nearest" (as OpenCV, rounded down), "nearest-exact", "linear", "bilinear" or "trilinear" by the number
    of axes, "bicubic" (Keys 1981, a = -0.75) or "area" (means of windows). Without ``recompute_scale_factor`` the
    places follow the given factor, not the ratio of the sizes. ``antialias`` is not offered. GraphError for options
    that do not go together, ShapeError for sizes that do not fit.
    """
    axes = input.ndim - 2
    if mode not in AXES:
        raise GraphError(f"interpolate: mode {mode!r} is not one of {', '.join(AXES)}")
    if axes not in AXES[mode]:
        raise ShapeError(f"interpolate({input.type}): mode {mode!r} takes [N, C, *size] of {AXES[mode]} axes behind C")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise GraphError(f"interpolate: align_corners does not go with mode {mode!r}")
    if antialias:
        raise GraphError("interpolate: antialias is not offered; smooth before, or use mode 'area'")
    if not input.dtype.is_float and not mode.startswith("nearest"):
        raise DTypeError(f"interpolate({input.type}): mode {mode!r} takes floating-point numbers")
    wanted, factors = _sizes(input.shape[2:], size, scale_factor, recompute_scale_factor)
    if mode == "area":
        pool = (pooling.adaptive_avg_pool1d, pooling.adaptive_avg_pool2d, pooling.adaptive_avg_pool3d)[axes - 1]
        return pool(input, wanted)
    out = input
    for axis, (n, m, factor) in enumerate(zip(input.shape[2:], wanted, factors, strict=True), start=2):
        step = n / m if factor is None else 1.0 / factor
        if mode.startswith("nearest"):
            out = _nearest(out, axis, m, step, is_exact=mode == "nearest-exact")
        elif mode == "bicubic":
            out = _cubic(out, axis, m, step, bool(align_corners))
        else:
            out = _linear(out, axis, m, step, bool(align_corners))
    return out


def _sizes(
    shape: Shape, size: int | Sequence[int] | None, scale_factor: Factors | None, recompute: bool | None
) -> tuple[Shape, list[float | None]]:
    axes = len(shape)
    if (size is None) == (scale_factor is None):
        raise GraphError("interpolate: takes either size or scale_factor")
    if size is not None:
        if recompute:
            raise GraphError("interpolate: recompute_scale_factor needs a scale_factor")
        wanted = (size,) * axes if isinstance(size, int) else tuple(size)
        factors: list[float | None] = [None] * axes
    else:
        assert scale_factor is not None
        given = (scale_factor,) * axes if isinstance(scale_factor, (int, float)) else tuple(scale_factor)
        if len(given) != axes or min(given) <= 0:
            raise ShapeError(f"interpolate: scale_factor must be {axes} positive numbers or one, not {scale_factor}")
        wanted = tuple([floor(n * f) for n, f in zip(shape, given, strict=True)])
        factors = [None] * axes if recompute else [float(f) for f in given]
    if len(wanted) != axes or min(wanted) < 1 or min(shape) < 1:
        raise ShapeError(f"interpolate: {axes} axes of sizes {list(shape)} cannot become {list(wanted)}")
    return wanted, factors


def _working(x: Operators) -> t.DType:
    """In what places are reckoned: float64 for float64, float32 otherwise, so that roundings are PyTorch's."""
    return t.float64 if x.dtype is t.float64 else t.float32


def _nearest(x: V, axis: int, m: int, step: float, *, is_exact: bool) -> V:
    if is_exact:
        at = e.maximum(_source(x, axis, m, step, False), 0) + 0.5  # two roundings, as in PyTorch
    else:
        at = e.astype(x.bind(e.Iota((m,), 0, t.int64), ())[0], _working(x)) * step
    low = e.floor(e.astype(at, t.float32))  # PyTorch's floorf
    return ix.take(x, e.minimum(e.astype(low, t.int64), x.shape[axis] - 1), axis=axis)


def _source(x: V, axis: int, m: int, step: float, align_corners: bool) -> V:
    at = e.astype(x.bind(e.Iota((m,), 0, t.int64), ())[0], _working(x))
    if align_corners:
        return at * ((x.shape[axis] - 1) / (m - 1) if m > 1 else 0.0)
    return (at + 0.5) * step - 0.5


def _weighted(x: V, axis: int, taps: Sequence[tuple[V, V]]) -> V:
    """The sum of x's elements at the places of each tap along an axis, times its weights."""
    out: V | None = None
    for place, weight in taps:
        factor = s.reshape(e.astype(weight, x.dtype), (weight.size, *(1,) * (x.ndim - 1 - axis)))
        part = ix.take(x, place, axis=axis) * factor
        out = part if out is None else out + part
    assert out is not None
    return out


def _linear(x: V, axis: int, m: int, step: float, align_corners: bool) -> V:
    n = x.shape[axis]
    if n == m and (align_corners or step == 1.0):
        return x
    source = e.maximum(_source(x, axis, m, step, align_corners), 0)
    low = e.minimum(e.astype(e.floor(source), t.int64), n - 1)
    part = e.clip(source - e.astype(low, source.dtype), 0, 1)
    return _weighted(x, axis, [(low, 1 - part), (e.minimum(low + 1, n - 1), part)])


def cubic_weights(part: V, a: float = -0.75) -> tuple[V, V, V, V]:
    """The weights of the places -1, 0, 1, 2 for a point at ``part`` of [0, 1) (Keys 1981, equation 4)."""

    def near(d: V) -> V:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: V) -> V:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return far(part + 1), near(part), near(1 - part), far(2 - part)


def _cubic(x: V, axis: int, m: int, step: float, align_corners: bool) -> V:
    n = x.shape[axis]
    source = _source(x, axis, m, step, align_corners)
    low = e.floor(source)
    place = e.astype(low, t.int64)
    weights = cubic_weights(source - low)
    return _weighted(x, axis, [(e.clip(place + k - 1, 0, n - 1), w) for k, w in enumerate(weights)])


__all__: list[str] = []
"""The public face is `telegrad.nn.functional`."""
