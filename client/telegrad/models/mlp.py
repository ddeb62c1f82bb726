"""Linear layers with norms, activations and dropout between them, as torchvision.ops.MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn.activation import Dropout, ReLU
from telegrad.nn.container import Sequential
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module


class MLP(Sequential):
    """x[..., in_channels] -> [..., hidden_channels[-1]]: for each width a linear layer, norm, activation and dropout.

    ::

        model = models.MLP(64, [256, 256, 10], norm_layer=nn.LayerNorm, activation_layer=nn.GELU, dropout=0.1)

    The last layer has no norm and no activation. ``norm_layer`` takes a width, such as `nn.BatchNorm1d`.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        norm_layer: Callable[[int], Module] | None = None,
        activation_layer: Callable[[], Module] = ReLU,
        bias: bool = True,
        dropout: float = 0.0,
        *,
        dtype: DType = types.float32,
    ) -> None:
        if not hidden_channels:
            raise ShapeError("MLP: hidden_channels must name one width at least, the last being the result's")
        layers: list[Module] = []
        width = in_channels
        for i, outputs in enumerate(hidden_channels):
            layers.append(Linear(width, outputs, bias, dtype=dtype))
            if i < len(hidden_channels) - 1:
                layers += [] if norm_layer is None else [norm_layer(outputs)]
                layers.append(activation_layer())
            layers.append(Dropout(dropout))
            width = outputs
        super().__init__(*layers)
