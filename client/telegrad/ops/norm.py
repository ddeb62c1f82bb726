"""Normalisations in their reference form. 16-bit floats are normalised in float32."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import ShapeError
from telegrad.ir.value import Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops.reduce import widened


def _last_axes(x: Operators, normalized_shape: Sequence[int], op: str) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if not shape or len(shape) > x.ndim or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{op}: normalized_shape {list(shape)} is not the end of {x.type}")
    return tuple(range(x.ndim - len(shape), x.ndim))


def layer_norm(
    input: V, normalized_shape: Sequence[int], weight: V | None = None, bias: V | None = None, eps: float = 1e-5
) -> V:
    """(x - mean) / sqrt(var + eps) over the last axes, times weight plus bias (Ba et al. 2016)."""
    axes = _last_axes(input, normalized_shape, "layer_norm")
    wide = widened(input)
    centred = wide - r.mean(wide, axis=axes, keepdims=True)
    out = centred / e.sqrt(r.mean(e.square(centred), axis=axes, keepdims=True) + eps)
    out = e.astype(out, e.inexact(input).dtype)
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def rms_norm(input: V, normalized_shape: Sequence[int], weight: V | None = None, eps: float = 1e-6) -> V:
    """x / sqrt(mean(x**2) + eps) over the last axes, times weight (Zhang, Sennrich 2019)."""
    axes = _last_axes(input, normalized_shape, "rms_norm")
    wide = widened(input)
    out = wide / e.sqrt(r.mean(e.square(wide), axis=axes, keepdims=True) + eps)
    out = e.astype(out, e.inexact(input).dtype)
    return out if weight is None else out * weight
