"""Functions with PyTorch's names and arguments. Where the array API has one too, `telegrad.*` has its form."""

from __future__ import annotations

from telegrad import context, ops
from telegrad.errors import GraphError, ShapeError
from telegrad.ops import attention, norm
from telegrad.ops import random as philox
from telegrad.ops.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    mish,
    prelu,
    relu6,
    selu,
    silu,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from telegrad.ops.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from telegrad.ops.cross_entropy import cross_entropy, nll_loss
from telegrad.ops.distance import cdist, cosine_similarity, normalize, pairwise_distance
from telegrad.ops.elementwise import relu, sigmoid, tanh
from telegrad.ops.index import one_hot
from telegrad.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from telegrad.ops.norm import group_norm, layer_norm, rms_norm
from telegrad.ops.padding import pad
from telegrad.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from telegrad.tensor import Tensor, Variable

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


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query key^T * scale + mask) value: query[..., L, E], key[..., S, E], value[..., S, D] -> [..., L, D].

    ``attn_mask``, broadcast to [..., L, S], is boolean (True: may attend) or is added. ``scale`` is 1 / sqrt(E) if not
    given. With ``is_causal`` query i attends to keys 0 to i. With ``enable_gqa`` key and value may have fewer heads,
    axis -3, each of which serves equally many of query's. A row that may attend to nothing gives zeros. Without dropout
    no matrix of weights is kept for the gradient.
    """
    random, stream = None, 0
    if dropout_p:
        random, stream = (context.TRACE.get() or query.session).random_key()
    return attention.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, dropout_key=random, stream=stream
    )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """input[N, C, ...] normalised for each channel, times weight[C] plus bias[C] (Ioffe, Szegedy 2015).

    With ``training`` by the mean and variance of the batch; running_mean[C] and running_var[C], if they are
    variables, move towards them by ``momentum`` (the variance then with n - 1, as in PyTorch). Otherwise by the running
    ones. ShapeError if a channel has one element to learn from.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise GraphError("batch_norm: running_mean and running_var are needed where training is false")
        return norm.channel_norm(input, running_mean, running_var, weight, bias, eps)
    mean, var, count = norm.channel_moments(input)
    for running, batch in ((running_mean, mean), (running_var, var * (count / max(count - 1, 1)))):
        if running is not None:
            _move(running, batch, momentum, "batch_norm")
    return norm.channel_norm(input, mean, var, weight, bias, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """input[N, C, ...] normalised for each sample and channel, times weight[C] plus bias[C] (Ulyanov et al. 2016).

    Running statistics are the means over the samples; see `batch_norm`. Without ``use_input_stats`` they are used.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    out = norm.instance_norm(input, weight, bias, eps)
    axes = tuple(range(2, input.ndim))
    if running_mean is not None:
        _move(running_mean, ops.mean(input, axis=(0, *axes)), momentum, "instance_norm")
    if running_var is not None:
        _move(running_var, ops.mean(ops.var(input, axis=axes, correction=1), axis=0), momentum, "instance_norm")
    return out


def _move(running: Tensor, batch: Tensor, momentum: float | Tensor, op: str) -> None:
    if not isinstance(running, Variable):
        raise GraphError(f"{op}: running_mean and running_var must be variables, which training updates")
    if running.shape != batch.shape:
        raise ShapeError(
            f"{op}: running statistics {running.type} must have one element for each of {batch.shape[0]} channels"
        )
    with context.no_grad():
        step = (ops.astype(batch.detach(), running.dtype) - running) * momentum
        running.assign(step + running)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "cdist", "celu", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout",
    "elu", "embedding", "gaussian_nll_loss", "gelu", "glu", "group_norm", "hardshrink", "hardsigmoid", "hardswish",
    "hardtanh", "hinge_embedding_loss", "huber_loss", "instance_norm", "kl_div", "l1_loss", "layer_norm", "leaky_relu",
    "linear", "log_softmax", "logsigmoid", "margin_ranking_loss", "max_pool1d", "max_pool2d", "max_pool3d", "mish",
    "mse_loss", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss", "normalize",
    "one_hot", "pad", "pairwise_distance", "poisson_nll_loss", "prelu", "relu", "relu6", "rms_norm",
    "scaled_dot_product_attention", "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax",
    "softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]  # fmt: skip
