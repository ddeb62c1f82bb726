"""Recurrent layers over whole sequences: several layers, both directions, PyTorch's parameters and results.

What the inputs contribute is one product for all steps; only what depends on the state is inside the `scan`. A
batch of sequences of different lengths comes as a `PackedSequence`: behind its end a sequence's state stands still.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from telegrad import ops
from telegrad.control_flow import scan
from telegrad.creation import zeros
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.nn.utils.rnn import PackedSequence
from telegrad.ops import recurrent
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class _Weights(NamedTuple):
    """The parameters of one direction of one layer."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    hr: Tensor | None


class RNNBase(Module):
    """What the recurrent layers have in common.

    Parameters are named as in PyTorch, ``weight_ih_l0``, ..., ``weight_ih_l0_reverse``, and drawn as there: uniform
    within 1 / sqrt(hidden_size). An input is [time, batch, input_size], with ``batch_first`` [batch, time, input_size],
    or without the batch axis; a result has ``hidden_size`` (``proj_size``) features, twice that in two directions.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: DType,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if input_size < 1 or hidden_size < 1 or num_layers < 1:
            raise ShapeError(f"{name}: sizes must be positive, not {input_size}, {hidden_size}, {num_layers} layers")
        if not 0.0 <= dropout <= 1.0:
            raise GraphError(f"{name}: dropout must be from 0 to 1, which {dropout} is not")
        if not 0 <= proj_size < hidden_size:
            raise ShapeError(f"{name}: proj_size {proj_size} must be below hidden_size {hidden_size}")
        self.input_size, self.hidden_size, self.num_layers, self.bias = input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.proj_size = proj_size
        rows, size = self.gates * hidden_size, proj_size or hidden_size
        directions = 2 if bidirectional else 1
        for layer in range(num_layers):
            columns = input_size if layer == 0 else size * directions
            for suffix in self._suffixes(layer):
                shapes = {"weight_ih": (rows, columns), "weight_hh": (rows, size)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                for key, shape in shapes.items():
                    self.register_parameter(key + suffix, Parameter(zeros(shape, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: a plan places parameters by itself. There for programs written for PyTorch."""

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}"] + ([f"_l{layer}_reverse"] if self.bidirectional else [])

    def _weights(self, suffix: str) -> _Weights:
        found = self._parameters
        return _Weights(
            getattr(self, "weight_ih" + suffix),
            getattr(self, "weight_hh" + suffix),
            found.get("bias_ih" + suffix),
            found.get("bias_hh" + suffix),
            found.get("weight_hr" + suffix),
        )

    def _step(self, weights: _Weights) -> tuple[Callable[[Tensor], Tensor], Callable[..., tuple[Tensor, ...]]]:
        """What the inputs contribute, and ``step(states, contribution)``, the next states, h first."""
        raise NotImplementedError

    def _run(self, input: Tensor | PackedSequence, states: Sequence[Tensor] | None) -> tuple[Any, list[Tensor]]:
        """The result, and the last states stacked, each [layers * directions, batch, size]."""
        lengths = input.lengths if isinstance(input, PackedSequence) else None
        x = input.data if isinstance(input, PackedSequence) else input
        batch_first = self.batch_first and lengths is None
        is_batched = x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            axes = "batch, time" if batch_first else "time, batch"
            raise ShapeError(
                f"{type(self).__name__}: takes an input of [{axes}, {self.input_size}] or [time, {self.input_size}], "
                f"not {x.type}"
            )
        if not is_batched:
            x = ops.expand_dims(x, axis=1)
        elif batch_first:
            x = ops.moveaxis(x, 0, 1)
        begin = self._begin(x, states, is_batched)
        alive = None
        if lengths is not None:
            steps = ops.expand_dims(_numbers(x, lengths), axis=1)
            alive = ops.expand_dims(steps < lengths, axis=2)
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            outs: list[Tensor] = []
            for suffix in self._suffixes(layer):
                start = tuple(s[len(ends), ...] for s in begin)
                last, out = self._direction(x, alive, start, self._weights(suffix), suffix.endswith("_reverse"))
                ends.append(last)
                outs.append(out)
            x = outs[0] if len(outs) == 1 else ops.concat(outs, axis=-1)
            if layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        stacked = [ops.stack(list(each)) for each in zip(*ends, strict=True)]
        if not is_batched:
            return ops.squeeze(x, axis=1), [ops.squeeze(each, axis=1) for each in stacked]
        if lengths is not None:
            return PackedSequence(x, lengths), stacked
        return (ops.moveaxis(x, 0, 1) if batch_first else x), stacked

    def _direction(
        self, x: Tensor, alive: Tensor | None, start: tuple[Tensor, ...], weights: _Weights, reverse: bool
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        contribute, step = self._step(weights)

        def trip(states: tuple[Tensor, ...], now: tuple[Tensor, Tensor | None]) -> Any:
            part, is_alive = now
            after = step(states, part)
            if is_alive is None:
                return after, after[0]
            after = tuple(ops.where(is_alive, a, b) for a, b in zip(after, states, strict=True))
            return after, ops.where(is_alive, after[0], 0)

        return scan(trip, start, (contribute(x), alive), reverse=reverse)

    def _sizes(self) -> list[int]:
        return [self.proj_size or self.hidden_size]

    def _begin(self, x: Tensor, states: Sequence[Tensor] | None, is_batched: bool) -> list[Tensor]:
        layers = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [(layers, x.shape[1], size) for size in self._sizes()]
        if states is None:
            return [ops.broadcast_to(x.literal(0, x.dtype), shape) for shape in shapes]
        found: list[Tensor] = []
        for state, shape in zip(states, shapes, strict=True):
            wanted = shape if is_batched else (shape[0], shape[2])
            if state.shape != wanted:
                raise ShapeError(
                    f"{type(self).__name__}: the state must have the shape {list(wanted)}, not {list(state.shape)}"
                )
            found.append(state if is_batched else ops.expand_dims(state, axis=1))
        return found

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False
        }  # fmt: skip
        parts += [f"{key}={getattr(self, key)}" for key, usual in defaults.items() if getattr(self, key) != usual]
        return ", ".join(parts)


def _numbers(x: Tensor, lengths: Tensor) -> Tensor:
    """0, 1, ... for the steps of x, in the dtype of the lengths."""
    ones = ops.broadcast_to(x.literal(1, lengths.dtype), (x.shape[0],))
    return ops.cumulative_sum(ones, axis=0, dtype=lengths.dtype) - 1


class RNN(RNNBase):
    """h' = tanh(x w_ih^T + b_ih + h w_hh^T + b_hh), or relu, step by step (Elman 1990)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise GraphError(f"RNN: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype)
        self.nonlinearity = nonlinearity

    def _step(self, weights: _Weights) -> tuple[Callable[[Tensor], Tensor], Callable[..., tuple[Tensor, ...]]]:
        def step(states: tuple[Tensor, ...], part: Tensor) -> tuple[Tensor, ...]:
            (h,) = states
            return (recurrent.rnn_step(part, recurrent.affine(h, weights.hh, None), self.nonlinearity),)

        return lambda x: _with_both_biases(x, weights), step

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(the h of the last layer at every step, the last h[layers * directions, batch, hidden_size] of all layers).

        hx holds the first ones, zeros if missing. The input may be a `PackedSequence`, as the result then is.
        """
        out, (h,) = self._run(input, None if hx is None else [hx])
        return out, h


class GRU(RNNBase):
    """A gated recurrent unit over sequences (Cho et al. 2014); the reset gate comes behind the product, as in cuDNN."""

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, dtype)

    def _step(self, weights: _Weights) -> tuple[Callable[[Tensor], Tensor], Callable[..., tuple[Tensor, ...]]]:
        def step(states: tuple[Tensor, ...], part: Tensor) -> tuple[Tensor, ...]:
            (h,) = states
            return (recurrent.gru_step(part, recurrent.affine(h, weights.hh, weights.b_hh), h),)

        return lambda x: recurrent.affine(x, weights.ih, weights.b_ih), step

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(the h of the last layer at every step, the last h[layers * directions, batch, hidden_size] of all layers).

        hx holds the first ones, zeros if missing. The input may be a `PackedSequence`, as the result then is.
        """
        out, (h,) = self._run(input, None if hx is None else [hx])
        return out, h


class LSTM(RNNBase):
    """A long short-term memory over sequences (Hochreiter, Schmidhuber 1997; Gers et al. 2000).

    ``proj_size`` projects h to fewer features (Sak et al. 2014).
    """

    gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype
        )

    def _sizes(self) -> list[int]:
        return [self.proj_size or self.hidden_size, self.hidden_size]

    def _step(self, weights: _Weights) -> tuple[Callable[[Tensor], Tensor], Callable[..., tuple[Tensor, ...]]]:
        def step(states: tuple[Tensor, ...], part: Tensor) -> tuple[Tensor, ...]:
            h, c = states
            h, c = recurrent.lstm_step(part + recurrent.affine(h, weights.hh, None), c)
            return (h if weights.hr is None else recurrent.affine(h, weights.hr, None)), c

        return lambda x: _with_both_biases(x, weights), step

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """(the h of the last layer at every step, (the last h, the last c) of all layers).

        hx = (h, c) holds the first ones, each [layers * directions, batch, size], zeros if missing. The input may be a
        `PackedSequence`, as the result then is.
        """
        if isinstance(hx, Tensor) or (hx is not None and len(hx) != 2):
            raise GraphError("LSTM: the state is a pair (h, c)")
        out, (h, c) = self._run(input, hx)
        return out, (h, c)


def _with_both_biases(x: Tensor, weights: _Weights) -> Tensor:
    bias = weights.b_ih if weights.b_ih is None or weights.b_hh is None else weights.b_ih + weights.b_hh
    return recurrent.affine(x, weights.ih, bias)
