"""Initial values of parameters, with PyTorch's names and formulas. Each assigns to the variable and returns it."""

from __future__ import annotations

import math
from typing import TypeVar

from telegrad import random
from telegrad.creation import full
from telegrad.errors import GraphError, ShapeError
from telegrad.tensor import Variable

X = TypeVar("X", bound=Variable)


def uniform_(tensor: X, a: float = 0.0, b: float = 1.0) -> X:
    """Numbers from the uniform distribution on [a, b)."""
    tensor.assign(random.uniform(tensor.shape, a, b, dtype=tensor.dtype))
    return tensor


def normal_(tensor: X, mean: float = 0.0, std: float = 1.0) -> X:
    """Numbers from the normal distribution."""
    tensor.assign(random.normal(tensor.shape, mean, std, dtype=tensor.dtype))
    return tensor


def constant_(tensor: X, val: float) -> X:
    """One number everywhere."""
    tensor.assign(full(tensor.shape, val, dtype=tensor.dtype))
    return tensor


def zeros_(tensor: X) -> X:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: X) -> X:
    """Ones."""
    return constant_(tensor, 1.0)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out) of a weight[out, in, ...]."""
    if len(shape) < 2:
        raise ShapeError(f"fan in and fan out need a weight of two axes or more, not {list(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity's inputs are to be scaled."""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        raise GraphError(f"calculate_gain: nonlinearity {nonlinearity!r} is not known")
    return gains[nonlinearity]


def xavier_uniform_(tensor: X, gain: float = 1.0) -> X:
    """Glorot and Bengio 2010, equation 16."""
    fan_in, fan_out = fans(tensor.shape)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: X, gain: float = 1.0) -> X:
    """Glorot and Bengio 2010, equation 12, with normal numbers."""
    fan_in, fan_out = fans(tensor.shape)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)))


def _kaiming(shape: tuple[int, ...], a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise GraphError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = fans(shape)[0 if mode == "fan_in" else 1]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(tensor: X, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> X:
    """He et al. 2015, equation 14, with uniform numbers."""
    bound = math.sqrt(3.0) * _kaiming(tensor.shape, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: X, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> X:
    """He et al. 2015, equation 14."""
    return normal_(tensor, 0.0, _kaiming(tensor.shape, a, mode, nonlinearity))
