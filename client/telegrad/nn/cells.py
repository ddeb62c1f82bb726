"""Recurrent cells: one step each, with PyTorch's parameters."""

from __future__ import annotations

import math

from telegrad.creation import zeros
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.ops import recurrent
from telegrad.ops.shape import broadcast_to
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class _Cell(Module):
    """What all have in common. Initial values as in PyTorch: uniform within 1 / sqrt(hidden_size)."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool, dtype: DType) -> None:
        super().__init__()
        if input_size < 0 or hidden_size < 1:
            raise ShapeError(f"{type(self).__name__}: sizes must be positive, not {input_size} and {hidden_size}")
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = self.gates * hidden_size
        self.weight_ih = Parameter(zeros((rows, input_size), dtype=dtype))
        self.weight_hh = Parameter(zeros((rows, hidden_size), dtype=dtype))
        self.register_parameter("bias_ih", Parameter(zeros((rows,), dtype=dtype)) if bias else None)
        self.register_parameter("bias_hh", Parameter(zeros((rows,), dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def _states(self, input: Tensor, *states: Tensor | None) -> list[Tensor]:
        name = type(self).__name__
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: takes an input of [batch, {self.input_size}] or [{self.input_size}], not {input.type}"
            )
        shape = (*input.shape[:-1], self.hidden_size)
        for state in states:
            if state is not None and state.shape != shape:
                raise ShapeError(f"{name}: the state must have the shape {list(shape)}, not {list(state.shape)}")
        return [broadcast_to(input.literal(0, input.dtype), shape) if x is None else x for x in states]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """tanh or relu of a linear function of the input and the state (Elman 1990)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: DType = types.float32,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise GraphError(f"RNNCell: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state[batch, hidden_size] from input[batch, input_size] and the state, zeros if missing."""
        (h,) = self._states(input, hx)
        return recurrent.rnn_cell(input, h, *self._weights(), nonlinearity=self.nonlinearity)


class LSTMCell(_Cell):
    """A step of a long short-term memory (Hochreiter, Schmidhuber 1997; Gers et al. 2000)."""

    gates = 4

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: DType = types.float32) -> None:
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next (h, c), each [batch, hidden_size], from input[batch, input_size] and (h, c), zeros if missing."""
        if isinstance(hx, Tensor) or (hx is not None and len(hx) != 2):
            raise GraphError("LSTMCell: the state is a pair (h, c)")
        h, c = self._states(input, *(hx or (None, None)))
        return recurrent.lstm_cell(input, h, c, *self._weights())


class GRUCell(_Cell):
    """A step of a gated recurrent unit (Cho et al. 2014)."""

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: DType = types.float32) -> None:
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state[batch, hidden_size] from input[batch, input_size] and the state, zeros if missing."""
        (h,) = self._states(input, hx)
        return recurrent.gru_cell(input, h, *self._weights())
