"""Yogi."""

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
    filled_for,
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Yogi(Optimizer):
    """Zaheer et al. 2018, Adaptive methods for nonconvex optimization, algorithm 2, with Adam's bias corrections.

    Weight decay is decoupled.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-3,
        weight_decay: Rate = 0.0,
        initial_accumulator_value: float = 1e-6,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "exp_avg": zeros_for(parameter, "exp_avg"),
            "exp_avg_sq": filled_for(parameter, "exp_avg_sq", group["initial_accumulator_value"]),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        step = advanced(state)
        square = grad * grad
        first = averaged(state, "exp_avg", grad, beta1)
        second = state["exp_avg_sq"] - ops.sign(state["exp_avg_sq"] - square) * square * (1 - beta2)
        state["exp_avg_sq"] = second
        denominator = ops.sqrt(second) / ops.sqrt(1 - beta2**step) + options.number("eps")
        size = options.number("lr") / (1 - beta1**step)
        return shrunk(value, options) - first / denominator * size
