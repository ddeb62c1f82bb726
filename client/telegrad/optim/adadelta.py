"""Adadelta."""

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
    require,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Adadelta(Optimizer):
    """Zeiler 2012, Adadelta: an adaptive learning rate method, algorithm 1."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1.0,
        rho: Rate = 0.9,
        eps: Rate = 1e-6,
        weight_decay: Rate = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        rho = group["rho"]
        require(callable(rho) or 0 <= rho <= 1, f"Adadelta: rho must be in [0, 1], not {rho}")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "square_avg": zeros_for(parameter, "square_avg"),
            "acc_delta": zeros_for(parameter, "acc_delta"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        rho, eps = options.number("rho"), options.number("eps")
        grad = penalised(grad, value, options)
        advanced(state)
        mean = averaged(state, "square_avg", grad * grad, rho)
        delta = ops.sqrt(state["acc_delta"] + eps) / ops.sqrt(mean + eps) * grad
        averaged(state, "acc_delta", delta * delta, rho)
        return value - delta * options.number("lr")
