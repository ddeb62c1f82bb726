"""Activations, written with primitives: they differentiate by themselves and are made fast by fusion."""

from __future__ import annotations

import math

from telegrad.errors import GraphError, ShapeError
from telegrad.ir.types import normalize_axis
from telegrad.ir.value import V
from telegrad.ops import elementwise as e
from telegrad.ops.probability import softmax
from telegrad.ops.shape import reshape


def relu6(x: V, /) -> V:
    """min(max(x, 0), 6). The derivative at 0 and at 6 is 0."""
    return hardtanh(x, 0.0, 6.0)


def leaky_relu(x: V, /, negative_slope: float = 0.01) -> V:
    """x where positive, else negative_slope * x."""
    return e.where(x > 0, x, x * negative_slope)


def elu(x: V, /, alpha: float = 1.0) -> V:
    """x where positive, else alpha * (exp(x) - 1)."""
    return e.where(x > 0, x, e.expm1(e.where(x > 0, 0, x)) * alpha)


def celu(x: V, /, alpha: float = 1.0) -> V:
    """x where positive, else alpha * (exp(x / alpha) - 1)."""
    return e.where(x > 0, x, e.expm1(e.where(x > 0, 0, x) / alpha) * alpha)


def selu(x: V, /) -> V:
    """The self-normalising ELU (Klambauer et al. 2017, section 2)."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return elu(x, alpha) * scale


def gelu(x: V, /, approximate: str = "none") -> V:
    """x times the normal distribution function at x (Hendrycks, Gimpel 2016); "tanh" for its approximation."""
    if approximate == "none":
        return x * 0.5 * (e.erf(x * math.sqrt(0.5)) + 1)
    if approximate != "tanh":
        raise GraphError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
    return x * 0.5 * (e.tanh(inner) + 1)


def silu(x: V, /) -> V:
    """x * sigmoid(x), also called swish."""
    return x * e.sigmoid(x)


def mish(x: V, /) -> V:
    """x * tanh(softplus(x)) (Misra 2019)."""
    return x * e.tanh(softplus(x))


def softplus(x: V, /, beta: float = 1.0, threshold: float = 20.0) -> V:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x is above the threshold."""
    scaled = x * beta
    is_linear = scaled > threshold
    return e.where(is_linear, x, e.logaddexp(e.where(is_linear, 0, scaled), 0) / beta)


def softsign(x: V, /) -> V:
    """x / (1 + |x|)."""
    return x / (e.abs(x) + 1)


def log_sigmoid(x: V, /) -> V:
    """log(sigmoid(x)), without overflow."""
    return -e.logaddexp(-x, 0)


def hardtanh(x: V, /, min_val: float = -1.0, max_val: float = 1.0) -> V:
    """x limited to [min_val, max_val]. The derivative at the limits is 0 (that of ``clip`` is 1)."""
    return e.where(x <= min_val, min_val, e.where(x >= max_val, max_val, x))


def hardsigmoid(x: V, /) -> V:
    """x / 6 + 1 / 2, limited to [0, 1]. The derivative at the limits is 0."""
    return hardtanh(x + 3, 0.0, 6.0) / 6


def hardswish(x: V, /) -> V:
    """x * hardsigmoid(x) (Howard et al. 2019, section 5.2)."""
    return x * e.clip(x + 3, 0, 6) / 6


def softmin(x: V, /, dim: int = -1) -> V:
    """softmax(-x) along ``dim``."""
    return softmax(-x, axis=dim)


def tanhshrink(x: V, /) -> V:
    """x - tanh(x)."""
    return x - e.tanh(x)


def hardshrink(x: V, /, lambd: float = 0.5) -> V:
    """x, and 0 where |x| is at most ``lambd``."""
    return e.where((x <= lambd) & (x >= -lambd), 0, x)


def softshrink(x: V, /, lambd: float = 0.5) -> V:
    """x moved towards 0 by ``lambd``, and 0 where |x| is at most that."""
    if lambd < 0:
        raise GraphError(f"softshrink: lambd must not be negative, as {lambd} is")
    return e.where(x > lambd, x - lambd, e.where(x < -lambd, x + lambd, x * 0))


def threshold(x: V, /, threshold: float, value: float) -> V:
    """x where it is above ``threshold``, else ``value``."""
    return e.where(x > threshold, x, value)


def glu(x: V, /, dim: int = -1) -> V:
    """a * sigmoid(b) for the halves a and b of x along ``dim`` (Dauphin et al. 2017)."""
    axis = normalize_axis(dim, x.ndim, op="glu")
    if x.shape[axis] % 2:
        raise ShapeError(f"glu({x.type}): axis {axis} must have an even size")
    half = x.shape[axis] // 2
    lead = (slice(None),) * axis
    return x[(*lead, slice(None, half))] * e.sigmoid(x[(*lead, slice(half, None))])


def prelu(x: V, weight: V, /) -> V:
    """x where positive, else weight * x; weight[C] goes with axis 1, weight[1] with all (He et al. 2015)."""
    if weight.ndim > 1 or (weight.size != 1 and (x.ndim < 2 or x.shape[1] != weight.size)):
        raise ShapeError(
            f"prelu({x.type}): weight {weight.type} must have one element, or one for each channel, axis 1"
        )
    if weight.size != 1:
        weight = reshape(weight, (weight.size, *(1,) * (x.ndim - 2)))
    return e.where(x > 0, x, x * weight)
