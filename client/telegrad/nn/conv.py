"""Convolutions and transposed convolutions over one to three axes."""

from __future__ import annotations

import math
from typing import Any, Literal

from telegrad.creation import zeros
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.ops.convolution import Sizes, sizes
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class _Conv(Module):
    """What all have in common. Initial values as in PyTorch: uniform within 1 / sqrt(fan in)."""

    axes = 0
    is_transposed = False

    def _build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        dilation: Sizes,
        groups: int,
        bias: bool,
        dtype: DType,
    ) -> None:
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: {in_channels} and {out_channels} channels must be divisible into {groups} groups"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = sizes(kernel_size, self.axes, f"{name}: kernel_size")
        self.stride = sizes(stride, self.axes, f"{name}: stride")
        self.dilation = sizes(dilation, self.axes, f"{name}: dilation")
        ends = (in_channels, out_channels // groups) if self.is_transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(zeros((*ends, *self.kernel_size), dtype=dtype))
        self.register_parameter("bias", Parameter(zeros((out_channels,), dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight.shape)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride},"
            f" dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class _Forward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | Literal["same", "valid"] = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise GraphError(
                f"{type(self).__name__}: padding_mode is 'zeros', 'reflect', 'replicate' or 'circular', not"
                f" {padding_mode!r}"
            )
        self.padding, self.padding_mode = padding, padding_mode
        self._build(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """input[N, in, ...] -> [N, out, ...]."""
        convolve: Any = getattr(F, f"conv{self.axes}d")
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._widths(), mode=self.padding_mode), 0
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _widths(self) -> list[int]:
        """For `pad`: a pair for each axis, the last first."""
        pairs: list[int] = []
        for k, d, p in reversed(
            list(
                zip(
                    self.kernel_size,
                    self.dilation,
                    (0,) * self.axes if isinstance(self.padding, str) else sizes(self.padding, self.axes, "padding"),
                    strict=True,
                )
            )
        ):
            total = d * (k - 1)
            pairs += [total // 2, total - total // 2] if self.padding == "same" else [p, p]
        return pairs

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, padding={self.padding!r}, padding_mode={self.padding_mode!r}"


class Conv1d(_Forward):
    """input[N, in, L] -> [N, out, positions] with weight[out, in / groups, K]; see `functional.conv1d`."""

    axes = 1


class Conv2d(_Forward):
    """input[N, in, H, W] -> [N, out, *positions] with weight[out, in / groups, KH, KW]; see `functional.conv2d`."""

    axes = 2


class Conv3d(_Forward):
    """input[N, in, D, H, W] -> [N, out, *positions] with weight[out, in / groups, *K]; see `functional.conv3d`."""

    axes = 3


class _Transposed(_Conv):
    is_transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.padding, self.output_padding = padding, output_padding
        self._build(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """input[N, in, ...] -> [N, out, ...]."""
        convolve: Any = getattr(F, f"conv_transpose{self.axes}d")
        return convolve(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, padding={self.padding}, output_padding={self.output_padding}"


class ConvTranspose1d(_Transposed):
    """input[N, in, L] -> [N, out, size] with weight[in, out / groups, K]; see `functional.conv_transpose1d`."""

    axes = 1


class ConvTranspose2d(_Transposed):
    """input[N, in, H, W] -> [N, out, *size] with weight[in, out / groups, KH, KW]."""

    axes = 2


class ConvTranspose3d(_Transposed):
    """input[N, in, D, H, W] -> [N, out, *size] with weight[in, out / groups, *K]."""

    axes = 3
