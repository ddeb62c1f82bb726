"""Normalisations over the last axes, over the batch, and over groups of channels."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.creation import ones, zeros
from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.ops.shape import full_like
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class LayerNorm(Module):
    """(x - mean) / sqrt(var + eps) over the last axes, times weight plus bias."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if elementwise_affine else None)
        has_bias = elementwise_affine and bias
        self.register_parameter("bias", Parameter(zeros(shape, dtype=dtype)) if has_bias else None)

    def forward(self, input: Tensor) -> Tensor:
        """layer_norm(input)."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class RMSNorm(Module):
    """x / sqrt(mean(x**2) + eps) over the last axes, times weight."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-6,
        elementwise_affine: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if elementwise_affine else None)

    def forward(self, input: Tensor) -> Tensor:
        """rms_norm(input)."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class _Channels(Module):
    """Normalisations of channels, axis 1, with running statistics."""

    ranks: tuple[int, ...] = ()
    has_bare_samples = False  # whether the smaller rank is a sample without its batch

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        shape = (num_features,)
        self.register_parameter("weight", Parameter(ones(shape, dtype=dtype)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(shape, dtype=dtype)) if affine else None)
        self.register_buffer("running_mean", zeros(shape, dtype=dtype) if track_running_stats else None)
        self.register_buffer("running_var", ones(shape, dtype=dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=types.int64) if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Running statistics as they begin: mean 0, variance 1, no batch."""
        for buffer, number in ((self.running_mean, 0.0), (self.running_var, 1.0), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.assign(full_like(buffer, number))

    def _check(self, input: Tensor) -> None:
        if input.ndim not in self.ranks:
            wanted = " or ".join(str(rank) for rank in self.ranks)
            raise ShapeError(f"{type(self).__name__}({input.type}): takes a tensor of {wanted} axes")
        channels = input.shape[input.ndim + 1 - self.ranks[-1] if self.has_bare_samples else 1]
        if channels != self.num_features and (self.affine or self.track_running_stats):
            raise ShapeError(
                f"{type(self).__name__}({input.type}): has {channels} channels, the module is for {self.num_features}"
            )

    def _momentum(self) -> float | Tensor:
        """How far the running statistics move; notes the batch."""
        if self.num_batches_tracked is None or not self.training:
            return 0.0 if self.momentum is None else self.momentum
        self.num_batches_tracked.assign(self.num_batches_tracked + 1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.astype(self.running_mean.dtype)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine},"
            f" track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_Channels):
    def forward(self, input: Tensor) -> Tensor:
        """batch_norm(input): by the batch in training mode or without running statistics, else by these."""
        self._check(input)
        learns = self.training or self.running_mean is None
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, learns, self._momentum(), self.eps
        )


class BatchNorm1d(_BatchNorm):
    """[N, C] or [N, C, L] normalised for each channel over the batch; see `functional.batch_norm`."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """[N, C, H, W] normalised for each channel over the batch; see `functional.batch_norm`."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """[N, C, D, H, W] normalised for each channel over the batch; see `functional.batch_norm`."""

    ranks = (5,)


class _InstanceNorm(_Channels):
    has_bare_samples = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """instance_norm(input): by each sample in training mode or without running statistics, else by these."""
        self._check(input)
        has_batch = input.ndim == self.ranks[-1]
        out = F.instance_norm(
            input if has_batch else input.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum or 0.0,  # PyTorch counts no batches here
            self.eps,
        )
        return out if has_batch else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """[N, C, L] (or [C, L]) normalised for each sample and channel; see `functional.instance_norm`."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """[N, C, H, W] (or [C, H, W]) normalised for each sample and channel; see `functional.instance_norm`."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """[N, C, D, H, W] (or [C, D, H, W]) normalised for each sample and channel; see `functional.instance_norm`."""

    ranks = (4, 5)


class GroupNorm(Module):
    """[N, C, ...] normalised for each sample over groups of channels; see `functional.group_norm`."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(f"GroupNorm: {num_channels} channels must be divisible into {num_groups} groups")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.register_parameter("weight", Parameter(ones((num_channels,), dtype=dtype)) if affine else None)
        self.register_parameter("bias", Parameter(zeros((num_channels,), dtype=dtype)) if affine else None)

    def forward(self, input: Tensor) -> Tensor:
        """group_norm(input)."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LocalResponseNorm(Module):
    """[N, C, ...] normalised over channels that are neighbours; see `functional.local_response_norm`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """local_response_norm(input)."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
