"""Functions with PyTorch's names and arguments. Where the array API has one too, `telegrad.*` has its form."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from telegrad import context, ops
from telegrad.creation import asarray
from telegrad.errors import GraphError, ShapeError
from telegrad.ir.types import normalize_axis
from telegrad.nn.ctc import ctc_loss
from telegrad.ops import attention, norm
from telegrad.ops import dropout as dropouts
from telegrad.ops import embedding as tables
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
    Sizes,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    sizes,
)
from telegrad.ops.cross_entropy import cross_entropy, nll_loss
from telegrad.ops.distance import cdist, cosine_similarity, normalize, pairwise_distance
from telegrad.ops.elementwise import relu, sigmoid, tanh
from telegrad.ops.fractional_pooling import fractional_max_pool
from telegrad.ops.index import one_hot
from telegrad.ops.interpolation import interpolate
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
    sigmoid_focal_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from telegrad.ops.matrix_norms import vector_norm
from telegrad.ops.norm import group_norm, layer_norm, local_response_norm, rms_norm
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
from telegrad.ops.rearrange import channel_shuffle, fold, pixel_shuffle, pixel_unshuffle, unfold
from telegrad.ops.sampling import affine_grid, grid_sample
from telegrad.ops.segments import scatter, scatter_softmax
from telegrad.ops.unpooling import lp_pool1d, lp_pool2d, lp_pool3d, max_unpool1d, max_unpool2d, max_unpool3d
from telegrad.tensor import Tensor
from telegrad.variable import Variable

logsigmoid = log_sigmoid


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input[..., in] @ weight[out, in].T + bias[out] -> [..., out]."""
    out = ops.matmul(input, weight.mT)
    return out if bias is None else out + bias


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of linear scores: input[N, in] or [in] by linear_weight[classes, in].

    linear_weight[classes, *rest, in] gives a loss at each place of the rest, as of scores[N, classes, *rest]. The
    scores are made in whole: PyTorch's options for making them in pieces are not offered.
    """
    if input.ndim not in (1, 2) or linear_weight.ndim < 2 or linear_weight.shape[-1] != input.shape[-1]:
        raise ShapeError(
            f"linear_cross_entropy({input.type}, {linear_weight.type}): takes an input of [N, in] or [in] and a weight"
            " of [classes, ..., in]"
        )
    *wide, features = linear_weight.shape
    if linear_bias is not None and linear_bias.shape != tuple(wide):
        raise ShapeError(f"linear_cross_entropy: the bias must be {wide}, not {linear_bias.type}")
    flat_bias = None if linear_bias is None else linear_bias.flatten()
    scores = linear(input, linear_weight.reshape((-1, features)), flat_bias).reshape((*input.shape[:-1], *wide))
    ignored = -100 if ignore_index is None else ignore_index
    return cross_entropy(
        scores, target, weight, ignore_index=ignored, reduction=reduction, label_smoothing=label_smoothing
    )


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1[..., in1] weight[out, in1, in2] input2[..., in2] plus bias[out] -> [..., out]."""
    if weight.ndim != 3 or (*input1.shape[-1:], *input2.shape[-1:]) != weight.shape[1:]:
        raise ShapeError(f"bilinear({input1.type}, {input2.type}): the inputs do not fit the weight {weight.type}")
    if input1.shape[:-1] != input2.shape[:-1]:
        raise ShapeError(f"bilinear({input1.type}, {input2.type}): all axes but the last must be equal")
    outputs, in1, in2 = weight.shape
    table = ops.reshape(ops.moveaxis(weight, 1, 0), (in1, outputs * in2))
    rows = ops.reshape(ops.matmul(input1, table), (*input1.shape[:-1], outputs, in2))
    out = ops.squeeze(ops.matmul(rows, ops.expand_dims(input2, axis=-1)), axis=-1)
    return out if bias is None else out + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of weight[classes, dim] at input[...] -> [..., dim].

    Row ``padding_idx`` receives no gradient. With ``max_norm`` rows that are looked up and longer by the p-norm of
    ``norm_type`` are shortened to it first, in the variable itself. With ``scale_grad_by_freq`` the gradient of a row
    is over the number of times that it occurs. Gradients are dense whatever ``sparse`` is.
    """
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type, "embedding")
    return tables.embedding(input, weight, padding_idx, scale_grad_by_freq)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The "sum", "mean" or "max" of the rows of weight[classes, dim] in each bag -> [bags, dim]; an empty one is zeros.

    input[bags, n] holds equally long bags; in input[n] they begin at offsets[bags] (with ``include_last_offset``
    followed by n). Occurrences of ``padding_idx`` do not count. Rows are times ``per_sample_weights`` for a sum. The
    other options are those of `embedding`.
    """
    if max_norm is not None:
        _shorten(weight, input, max_norm, norm_type, "embedding_bag")
    return tables.embedding_bag(
        input, weight, offsets, scale_grad_by_freq, mode, per_sample_weights, include_last_offset, padding_idx
    )


def _shorten(weight: Tensor, input: Tensor, max_norm: float, norm_type: float, op: str) -> None:
    if not isinstance(weight, Variable):
        raise GraphError(f"{op}: with max_norm the weight must be a variable, whose rows are shortened")
    with context.no_grad():
        norm = vector_norm(weight, axis=1, keepdims=True, ord=norm_type)
        is_used = ops.expand_dims(tables.frequencies(input, weight.shape[0], weight.dtype), axis=1) > 0
        factor = ops.where(is_used & (norm > max_norm), norm.literal(max_norm, norm.dtype) / (norm + 1e-7), 1)
        weight.assign(ops.multiply(weight, factor))
    if context.TRACE.get() is None:
        weight.session.flush()  # what reads the row from here on reads the shortened one


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


def _channels_dropped(input: Tensor, p: float, training: bool, op: str, ranks: tuple[int, int], alone: int) -> Tensor:
    """Dropout of channels; an input of ``alone`` axes has no batch."""
    if input.ndim not in ranks:
        raise ShapeError(f"{op}({input.type}): takes an input of {ranks[0]} or {ranks[1]} axes")
    if not training or p == 0.0:
        return input
    key, stream = (context.TRACE.get() or input.session).random_key()
    x = ops.expand_dims(input, axis=0) if input.ndim == alone else input
    out = dropouts.feature_dropout(x, key, p=p, stream=stream)
    return ops.squeeze(out, axis=0) if input.ndim == alone else out


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input[N, C, L] or [C, L] with each channel zero with probability p, and divided by 1 - p otherwise."""
    return _channels_dropped(input, p, training, "dropout1d", (2, 3), 2)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input[N, C, H, W] with each channel zero with probability p, and divided by 1 - p otherwise.

    Three axes are [N, C, L], as in PyTorch.
    """
    return _channels_dropped(input, p, training, "dropout2d", (3, 4), 0)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """input[N, C, D, H, W] or [C, D, H, W] with each channel zero with probability p, divided by 1 - p otherwise."""
    return _channels_dropped(input, p, training, "dropout3d", (4, 5), 4)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """input with each element SELU's lower limit with probability p, then moved and scaled.

    Mean 0 and variance 1 stay so (Klambauer et al. 2017, section 3). As it is if not training, or if p is 0.
    """
    if not training or p == 0.0:
        return input
    key, stream = (context.TRACE.get() or input.session).random_key()
    return dropouts.alpha_dropout(input, key, p=p, stream=stream)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of input[N, C, ...]."""
    if not training or p == 0.0:
        return input
    key, stream = (context.TRACE.get() or input.session).random_key()
    return dropouts.feature_alpha_dropout(input, key, p=p, stream=stream)


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """input where positive, else input times a slope (Xu et al. 2015).

    In training each element has a slope of its own, from the uniform distribution on [lower, upper); otherwise it is
    the mean of the two.
    """
    if lower > upper:
        raise GraphError(f"rrelu: lower ({lower}) must not be above upper ({upper})")
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    key, stream = (context.TRACE.get() or input.session).random_key()
    drawn = philox.uniform(key, shape=input.shape, stream=stream, dtype=input.dtype)
    return ops.where(input > 0, input, input * (drawn * (upper - lower) + lower))


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norms of the differences of all pairs of rows of input[n, d]: [n (n - 1) / 2], by the first row."""
    if input.ndim != 2:
        raise ShapeError(f"pdist({input.type}): takes [n, d]")
    first, second = (asarray(i) for i in np.triu_indices(input.shape[0], 1))
    return vector_norm(ops.take(input, first, axis=0) - ops.take(input, second, axis=0), axis=-1, ord=p)


def _fractional_max_pool(
    axes: int,
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None,
    output_ratio: float | Sequence[float] | None,
    return_indices: bool,
    samples: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    op = f"fractional_max_pool{axes}d"
    if input.ndim not in (axes + 1, axes + 2):
        raise ShapeError(f"{op}({input.type}): takes an input of {axes + 2} axes, or {axes + 1} without a batch")
    if (output_size is None) == (output_ratio is None):
        raise GraphError(f"{op}: takes either output_size or output_ratio")
    kernel = sizes(kernel_size, axes, f"{op}: kernel_size")
    if output_size is not None:
        wanted = sizes(output_size, axes, f"{op}: output_size")
    else:
        given = (output_ratio,) * axes if isinstance(output_ratio, (int, float)) else tuple(output_ratio or ())
        if len(given) != axes or not all(0 < r < 1 for r in given):
            raise GraphError(f"{op}: output_ratio must be {axes} numbers between 0 and 1 or one, not {output_ratio}")
        wanted = tuple(floor(n * r) for n, r in zip(input.shape[-axes:], given, strict=True))
    x = input if input.ndim == axes + 2 else ops.expand_dims(input, axis=0)
    if samples is None:
        key, stream = (context.TRACE.get() or input.session).random_key()
        samples = philox.uniform(key, shape=(*x.shape[:2], axes), stream=stream, dtype=input.dtype)
    found = fractional_max_pool(x, samples, kernel, wanted, op)
    out, at = found if input.ndim == axes + 2 else (ops.squeeze(y, axis=0) for y in found)
    return (out, at) if return_indices else out


def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of windows of input[N, C, H, W] that lie at random distances (Graham 2014); N may be missing.

    There are ``output_size`` of them, or ``output_ratio`` (below 1) times the input's size, rounded down. With
    ``return_indices`` also their places in the channel, for `max_unpool2d`.
    """
    return _fractional_max_pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Sizes,
    output_size: Sizes | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of windows of input[N, C, D, H, W] at random distances; see `fractional_max_pool2d`."""
    return _fractional_max_pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau) along ``dim`` (Jang et al. 2016, equation 2); PyTorch ignores eps too.

    With ``hard`` one-hot at the largest, with the gradient of the soft one.
    """
    if tau <= 0:
        raise GraphError(f"gumbel_softmax: tau must be positive, not {tau}")
    key, stream = (context.TRACE.get() or logits.session).random_key()
    drawn = ops.maximum(philox.uniform(key, shape=logits.shape, stream=stream, dtype=logits.dtype), 2.0**-25)
    noise = -ops.log(-ops.log1p(-drawn))
    soft = ops.softmax((logits + noise) / tau, axis=dim)
    if not hard:
        return soft
    axis = normalize_axis(dim, soft.ndim, op="gumbel_softmax")
    chosen = ops.argmax(soft, axis=axis)
    one = ops.moveaxis(one_hot(chosen, soft.shape[axis], dtype=soft.dtype), -1, axis)
    return one + (soft - soft.detach())


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
    normal, mean, var, count = norm.batch_standardized(input, eps)
    for running, batch in ((running_mean, mean), (running_var, var * (count / max(count - 1, 1)))):
        if running is not None:
            _move(running, batch, momentum, "batch_norm")
    return norm.scaled(input, normal, weight, bias, "batch_norm")


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
    "adaptive_max_pool3d", "affine_grid", "alpha_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d", "batch_norm",
    "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cdist", "celu", "channel_shuffle",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "ctc_loss", "dropout", "dropout1d", "dropout2d", "dropout3d", "elu",
    "embedding", "embedding_bag", "feature_alpha_dropout", "fold", "fractional_max_pool2d", "fractional_max_pool3d",
    "gaussian_nll_loss", "gelu", "glu", "grid_sample", "group_norm", "gumbel_softmax", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate", "kl_div", "l1_loss",
    "layer_norm", "leaky_relu", "linear", "linear_cross_entropy", "local_response_norm", "log_softmax", "logsigmoid",
    "lp_pool1d", "lp_pool2d", "lp_pool3d", "margin_ranking_loss", "max_pool1d", "max_pool2d", "max_pool3d",
    "max_unpool1d", "max_unpool2d", "max_unpool3d", "mish", "mse_loss", "multi_margin_loss", "multilabel_margin_loss",
    "multilabel_soft_margin_loss", "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance", "pdist",
    "pixel_shuffle", "pixel_unshuffle", "poisson_nll_loss", "prelu", "relu", "relu6", "rms_norm", "rrelu",
    "scaled_dot_product_attention", "scatter", "scatter_softmax", "selu", "sigmoid", "sigmoid_focal_loss", "silu",
    "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "threshold", "triplet_margin_loss", "triplet_margin_with_distance_loss", "unfold",
]  # fmt: skip
