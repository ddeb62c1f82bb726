"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import (
    Group,
    Options,
    Rate,
    State,
    Variables,
    advanced,
    averaged,
    counter,
    penalised,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Adamax(Optimizer):
    """Kingma and Ba 2015, Adam, algorithm 2: the infinity norm in place of the second moment."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "exp_avg": zeros_for(parameter, "exp_avg"),
            "exp_inf": zeros_for(parameter, "exp_inf"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        grad = penalised(grad, value, options)
        step = advanced(state)
        first = averaged(state, "exp_avg", grad, beta1)
        largest = ops.maximum(state["exp_inf"] * beta2, ops.abs(grad) + options.number("eps"))
        state["exp_inf"] = largest
        return value - first / largest * (options.number("lr") / (1 - beta1**step))
