"""A multi-layer perceptron as torchvision has it (`torchvision.ops.MLP`), with its state keys.

torchvision's ``inplace`` is not offered: a tensor is a value. It stands before ``bias`` there, so what comes behind it
is given by name here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn.activation import Dropout, ReLU
from telegrad.nn.container import Sequential
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module


class MLP(Sequential):
    """Linear, norm, activation, dropout for each width of ``hidden_channels``, the last without norm and activation.

    ::

        model = nn.MLP(4, [16, 16, 2], norm_layer=nn.LayerNorm, activation_layer=nn.GELU, dropout=0.1)

    x[..., in_channels] -> y[..., hidden_channels[-1]]. ``norm_layer`` makes a module from a width,
    ``activation_layer`` from nothing; where one is None there is none.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        norm_layer: Callable[[int], Module] | None = None,
        activation_layer: Callable[[], Module] | None = ReLU,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        dtype: DType = types.float32,
    ) -> None:
        if not hidden_channels:
            raise ShapeError("MLP: hidden_channels must name one width at least")
        layers: list[Module] = []
        widths = [in_channels, *hidden_channels]
        for place, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers.append(Linear(inputs, outputs, bias, dtype=dtype))
            is_last = place == len(hidden_channels)
            if norm_layer is not None and not is_last:
                layers.append(norm_layer(outputs))
            if activation_layer is not None and not is_last:
                layers.append(activation_layer())
            layers.append(Dropout(dropout))
        super().__init__(*layers)
