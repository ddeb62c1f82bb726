"""Normalisations in their reference form. 16-bit floats are normalised in float32."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.errors import ShapeError
from telegrad.ir.value import Operators, V
from telegrad.ops import elementwise as e
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
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


# ---- by channels: axis 1 of x[N, C, ...]


def _channels(x: V, line: V, op: str, what: str) -> V:
    """line[C] beside x[N, C, ...]."""
    if x.ndim < 2 or line.shape != (x.shape[1],):
        raise ShapeError(f"{op}({x.type}): {what} {line.type} must have one element for each channel, axis 1")
    return s.reshape(line, (x.shape[1], *(1,) * (x.ndim - 2)))


def channel_moments(input: V) -> tuple[V, V, int]:
    """Mean[C] and variance[C] (with n) of input[N, C, ...], in float32 at least, and n. ShapeError if n is 1."""
    if input.ndim < 2:
        raise ShapeError(f"batch_norm({input.type}): takes a batch of channels, [N, C, ...]")
    count = input.size // max(input.shape[1], 1)
    if count == 1 and input.size:
        raise ShapeError(f"batch_norm({input.type}): a channel with one element has no variance to train with")
    axes = (0, *range(2, input.ndim))
    wide = widened(input)
    mean = r.mean(wide, axis=axes, keepdims=True)
    var = r.mean(e.square(wide - mean), axis=axes)
    return s.reshape(mean, (input.shape[1],)), var, count


def channel_norm(input: V, mean: V, var: V, weight: V | None, bias: V | None, eps: float) -> V:
    """(input[N, C, ...] - mean[C]) / sqrt(var[C] + eps) * weight[C] + bias[C]."""
    op = "batch_norm"
    wide = widened(input)
    centre = _channels(input, e.astype(mean, wide.dtype), op, "the mean")
    spread = _channels(input, e.sqrt(e.astype(var, wide.dtype) + eps), op, "the variance")
    return _scaled(input, (wide - centre) / spread, weight, bias, op)


def _scaled(input: V, normal: V, weight: V | None, bias: V | None, op: str) -> V:
    out = e.astype(normal, e.inexact(input).dtype)
    if weight is not None:
        out = out * _channels(input, weight, op, "the weight")
    return out if bias is None else out + _channels(input, bias, op, "the bias")


def group_norm(input: V, num_groups: int, weight: V | None = None, bias: V | None = None, eps: float = 1e-5) -> V:
    """input[N, C, ...] normalised over each of ``num_groups`` groups of channels, times weight[C] plus bias[C].

    Each sample by itself (Wu, He 2018). ShapeError if the groups do not divide the channels.
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ShapeError(f"group_norm({input.type}): axis 1, the channels, must be divisible into {num_groups} groups")
    wide = s.reshape(widened(input), (input.shape[0], num_groups, input.shape[1] // num_groups, *input.shape[2:]))
    axes = tuple(range(2, wide.ndim))
    centred = wide - r.mean(wide, axis=axes, keepdims=True)
    normal = centred / e.sqrt(r.mean(e.square(centred), axis=axes, keepdims=True) + eps)
    return _scaled(input, s.reshape(normal, input.shape), weight, bias, "group_norm")


def instance_norm(input: V, weight: V | None = None, bias: V | None = None, eps: float = 1e-5) -> V:
    """input[N, C, ...] normalised for each sample and channel, times weight[C] plus bias[C] (Ulyanov et al. 2016)."""
    if input.ndim < 3 or (input.size and input.size == input.shape[0] * input.shape[1]):
        raise ShapeError(f"instance_norm({input.type}): takes [N, C, ...] with more than one element for each channel")
    return group_norm(input, input.shape[1], weight, bias, eps) if input.shape[1] else input


def local_response_norm(input: V, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> V:
    """input[N, C, ...] / (k + alpha * m)^beta with m the mean of squares of ``size`` channels around each one.

    Krizhevsky et al. 2012, section 3.3; channels beyond the ends count as zeros.
    """
    if input.ndim < 3 or size < 1:
        raise ShapeError(f"local_response_norm({input.type}): takes [N, C, ...] and a positive size, not {size}")
    n, c, *rest = input.shape
    squares = s.pad(
        e.square(s.reshape(input, (n, c, -1 if input.size else 0))), [(0, 0), (size // 2, (size - 1) // 2), (0, 0)]
    )
    total = squares[:, :c]
    for i in range(1, size):
        total = total + squares[:, i : i + c]
    return input / e.pow(s.reshape(total, (n, c, *rest)) * (alpha / size) + k, beta)
