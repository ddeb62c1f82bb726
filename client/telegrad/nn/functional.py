"""Functions with PyTorch's names and arguments. Where the array API has one too, `telegrad.*` has its form."""

from __future__ import annotations

from telegrad import context, ops
from telegrad.ops import random as philox
from telegrad.ops.activation import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    mish,
    relu6,
    selu,
    silu,
    softplus,
    softsign,
)
from telegrad.ops.cross_entropy import cross_entropy, nll_loss
from telegrad.ops.elementwise import relu, sigmoid, tanh
from telegrad.ops.index import one_hot
from telegrad.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from telegrad.ops.norm import layer_norm, rms_norm
from telegrad.tensor import Tensor

logsigmoid = log_sigmoid


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input[..., in] @ weight[out, in].T + bias[out] -> [..., out]."""
    out = ops.matmul(input, weight.mT)
    return out if bias is None else out + bias


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """The rows of weight[classes, dim] at input[...] -> [..., dim]."""
    return ops.take(weight, input, axis=0)


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    """exp(x) over its sum along ``dim``."""
    return ops.softmax(input, axis=dim)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    """The logarithm of softmax along ``dim``."""
    return ops.log_softmax(input, axis=dim)


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input with each element zero with probability p, and divided by 1 - p otherwise; as it is if not training."""
    if not training or p == 0.0:
        return input
    home = context.TRACE.get() or input.session
    key, stream = home.random_key()
    return philox.dropout(input, key, p=p, stream=stream)


__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu", "cross_entropy", "dropout", "elu", "embedding",
    "gelu", "hardsigmoid", "hardswish", "hardtanh", "huber_loss", "kl_div", "l1_loss", "layer_norm", "leaky_relu",
    "linear", "log_softmax", "logsigmoid", "mish", "mse_loss", "nll_loss", "one_hot", "relu", "relu6", "rms_norm",
    "selu", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip
