"""Dropout of channels and for SELU networks as modules. `Dropout` itself is with the activations."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.tensor import Tensor


class _Dropout(Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise GraphError(f"{type(self).__name__}: p {p} must be from 0 to 1")
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout1d(_Dropout):
    """Channels of [N, C, L] or [C, L] zero with probability p while training; see `functional.dropout1d`."""

    def forward(self, input: Tensor) -> Tensor:
        """dropout1d(input) in training mode, input in evaluation."""
        return F.dropout1d(input, self.p, self.training)


class Dropout2d(_Dropout):
    """Channels of [N, C, H, W] zero with probability p while training; see `functional.dropout2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """dropout2d(input) in training mode, input in evaluation."""
        return F.dropout2d(input, self.p, self.training)


class Dropout3d(_Dropout):
    """Channels of [N, C, D, H, W] or [C, D, H, W] zero with probability p; see `functional.dropout3d`."""

    def forward(self, input: Tensor) -> Tensor:
        """dropout3d(input) in training mode, input in evaluation."""
        return F.dropout3d(input, self.p, self.training)


class AlphaDropout(_Dropout):
    """Dropout that keeps the mean and variance of SELU's activations; see `functional.alpha_dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """alpha_dropout(input) in training mode, input in evaluation."""
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_Dropout):
    """`AlphaDropout` of whole channels of [N, C, ...]; see `functional.feature_alpha_dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """feature_alpha_dropout(input) in training mode, input in evaluation."""
        return F.feature_alpha_dropout(input, self.p, self.training)
