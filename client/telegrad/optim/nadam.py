"""NAdam."""

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
    as_number,
    averaged,
    counter,
    penalised,
    scalar_for,
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class NAdam(Optimizer):
    """Dozat 2016, Incorporating Nesterov momentum into Adam, algorithm 2, with the momentum schedule of section 3.1."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        momentum_decay: Rate = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "mu_product": scalar_for(parameter, "mu_product", 1.0),
            "exp_avg": zeros_for(parameter, "exp_avg"),
            "exp_avg_sq": zeros_for(parameter, "exp_avg_sq"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        lr, decay = options.number("lr"), options.number("momentum_decay")
        if options.flag("decoupled_weight_decay"):
            value = shrunk(value, options)
        else:
            grad = penalised(grad, value, options)
        step = advanced(state)
        first = averaged(state, "exp_avg", grad, beta1)
        second = averaged(state, "exp_avg_sq", grad * grad, beta2)
        mu = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        product = as_number(state["mu_product"]) * mu
        state["mu_product"] = product
        denominator = ops.sqrt(second / (1 - beta2**step)) + options.number("eps")
        ahead = first * (lr * mu_next / (1 - product * mu_next))
        return value - (grad * (lr * (1 - mu) / (1 - product)) + ahead) / denominator
