"""Averages of a model's weights over training, as variables that are updated in the graph; PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np

from telegrad import context, ops
from telegrad.ir import types
from telegrad.nn.module import Module
from telegrad.optim.update import as_number, require
from telegrad.tensor import Tensor, Variable

__all__ = ["AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn"]

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From the average so far, the model's parameter and the number of models averaged to the next average."""


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average: decay * average + (1 - decay) * parameter."""
    require(0 <= decay <= 1, f"get_ema_avg_fn: decay must be in [0, 1], not {decay}")
    return lambda average, parameter, _: average * decay + parameter * (1 - decay)


def get_swa_avg_fn() -> Average:
    """The equal average of all models. Izmailov et al. 2018, Averaging weights leads to wider optima, algorithm 1."""
    return lambda average, parameter, number: average + (parameter - average) / (number + 1)


class AveragedModel(Module):
    """A copy of a model whose parameters are an average: of all, or by ``avg_fn``. Calling it runs the copy.

    The first ``update_parameters`` copies. Buffers follow the model; with ``use_buffers`` those of floating-point
    numbers are averaged too.
    """

    def __init__(self, model: Module, avg_fn: Average | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        self.module = deepcopy(model)
        self.n_averaged = Variable(np.int64(0))
        self.avg_fn = avg_fn or get_swa_avg_fn()
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's present parameters into the average."""
        number = as_number(ops.astype(self.n_averaged, types.float64))
        with context.no_grad():
            for average, variable in zip(self.module.parameters(), model.parameters(), strict=True):
                self._update(average, variable, number)
            for average, variable in zip(self.module.buffers(), model.buffers(), strict=True):
                if self.use_buffers and average.dtype.is_float:
                    self._update(average, variable, number)
                else:
                    average.assign(variable)
            self.n_averaged.assign(self.n_averaged + 1)
        if context.TRACE.get() is None:
            self.n_averaged.session.flush()

    def _update(self, average: Variable, variable: Variable, number: Tensor) -> None:
        average.assign(ops.where(number == 0, variable, self.avg_fn(average, variable, number)))
