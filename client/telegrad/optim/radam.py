"""RAdam."""

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
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class RAdam(Optimizer):
    """Liu et al. 2020, On the variance of the adaptive learning rate and beyond, algorithm 2.

    As in PyTorch the adaptive step begins where rho > 5, not 4.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "exp_avg": zeros_for(parameter, "exp_avg"),
            "exp_avg_sq": zeros_for(parameter, "exp_avg_sq"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        if options.flag("decoupled_weight_decay"):
            value = shrunk(value, options)
        else:
            grad = penalised(grad, value, options)
        step = advanced(state)
        first = averaged(state, "exp_avg", grad, beta1)
        second = averaged(state, "exp_avg_sq", grad * grad, beta2)
        correction2 = 1 - beta2**step
        rho_end = 2 / (1 - beta2) - 1
        rho = rho_end - 2 * step * beta2**step / correction2
        is_adaptive = rho > 5
        # rho grows to rho_end, so the root is of a positive number wherever it is used; elsewhere it stands at rho = 6
        far, far_end = ops.where(is_adaptive, rho, 6.0), ops.where(is_adaptive, ops.ones_like(rho) * rho_end, 6.0)
        rectified = ops.sqrt((far - 4) * (far - 2) * far_end / ((far_end - 4) * (far_end - 2) * far))
        adaptive = rectified * ops.sqrt(correction2) / (ops.sqrt(second) + options.number("eps"))
        scale = ops.where(is_adaptive, adaptive, 1.0)
        return value - first * (options.number("lr") / (1 - beta1**step)) * scale
