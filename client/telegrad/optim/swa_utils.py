"""Averages of a model's weights over training, as variables that are updated in the graph; PyTorch's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from telegrad import context, ops
from telegrad.ir import types
from telegrad.nn.module import Module
from telegrad.nn.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from telegrad.optim.lr_scheduler import Schedule
from telegrad.optim.update import Number, Rate, as_number, require
from telegrad.tensor import Tensor
from telegrad.variable import Variable

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn", "update_bn"]

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

    def update_parameters(self, model: Module, *, only_if: Tensor | None = None) -> None:
        """Take the model's present parameters into the average; where ``only_if``, bool[], is false, change nothing."""
        number = as_number(ops.astype(self.n_averaged, types.float64))

        def becomes(variable: Variable, new: Tensor) -> None:
            variable.assign(new if only_if is None else ops.where(only_if, new, variable))

        with context.no_grad():
            for average, variable in zip(self.module.parameters(), model.parameters(), strict=True):
                becomes(average, self._next(average, variable, number))
            for average, variable in zip(self.module.buffers(), model.buffers(), strict=True):
                is_averaged = self.use_buffers and average.dtype.is_float
                becomes(average, self._next(average, variable, number) if is_averaged else variable)
            becomes(self.n_averaged, self.n_averaged + 1)
        if context.TRACE.get() is None:
            self.n_averaged.session.flush()

    def _next(self, average: Variable, variable: Variable, number: Tensor) -> Tensor:
        return ops.where(number == 0, variable, self.avg_fn(average, variable, number))


def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Give the model's batch norms the statistics of a whole pass over ``loader``, whose batches weigh the same.

    A batch is what the model takes, or a list or tuple that begins with it. Parameters do not change. For an
    `AveragedModel`, whose running statistics are another model's.
    """
    norms = [m for m in model.modules() if isinstance(m, (BatchNorm1d, BatchNorm2d, BatchNorm3d))]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        with context.no_grad():
            for batch in loader:
                model(batch[0] if isinstance(batch, (list, tuple)) else batch)  # pyright: ignore[reportUnknownArgumentType]
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module._training = mode  # pyright: ignore[reportPrivateUsage]


@dataclass(frozen=True)
class SWALR(Schedule):
    """From lr to ``swa_lr`` within ``anneal_epochs`` steps, along a cosine or a line, and ``swa_lr`` from there on."""

    lr: Rate
    swa_lr: float
    anneal_epochs: int = 10
    anneal_strategy: str = "cos"

    def __post_init__(self) -> None:
        require(self.swa_lr >= 0, f"SWALR: swa_lr must be at least 0, not {self.swa_lr}")
        require(self.anneal_epochs >= 0, f"SWALR: anneal_epochs must be at least 0, not {self.anneal_epochs}")
        known = ("cos", "linear")
        require(
            self.anneal_strategy in known, f"SWALR: anneal_strategy is one of {known}, not {self.anneal_strategy!r}"
        )

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        part = ops.minimum(step / self.anneal_epochs, 1.0) if self.anneal_epochs else ops.full_like(step, 1.0)
        if self.anneal_strategy == "cos":
            part = (1 - ops.cos(part * math.pi)) / 2
        return part * self.swa_lr + (1 - part) * lr
