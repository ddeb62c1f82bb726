"""LAMB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import Group, Options, Rate, State, Variables, advanced, averaged, counter, norm, zeros_for
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class LAMB(Optimizer):
    """You et al. 2020, Large batch optimization for deep learning, algorithm 2, with the identity for phi.

    Each parameter's step is scaled to the parameter's norm; by 1 where either norm is 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-6,
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
            "exp_avg_sq": zeros_for(parameter, "exp_avg_sq"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        step = advanced(state)
        first = averaged(state, "exp_avg", grad, beta1) / (1 - beta1**step)
        second = averaged(state, "exp_avg_sq", grad * grad, beta2) / (1 - beta2**step)
        change = first / (ops.sqrt(second) + options.number("eps"))
        if options.has("weight_decay"):
            change = change + value * options.number("weight_decay")
        size, length = norm(value), norm(change)
        is_zero = ops.logical_or(size == 0, length == 0)
        ratio = ops.where(is_zero, 1.0, size / ops.where(is_zero, 1.0, length))
        return value - change * (options.number("lr") * ratio)
