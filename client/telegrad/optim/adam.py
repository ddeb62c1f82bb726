"""Adam and AdamW."""

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


class Adam(Optimizer):
    """Kingma and Ba 2015, Adam, algorithm 1; weight decay is added to the gradient unless it is decoupled.

    ``amsgrad`` divides by the largest second moment so far: Reddi et al. 2018, On the convergence of Adam and beyond.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {"step": counter(parameter), **{name: zeros_for(parameter, name) for name in names}}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        if options.flag("decoupled_weight_decay"):
            value = shrunk(value, options)
        else:
            grad = penalised(grad, value, options)
        step = advanced(state)
        first = averaged(state, "exp_avg", grad, beta1)
        second = averaged(state, "exp_avg_sq", grad * grad, beta2)
        if options.flag("amsgrad"):
            second = ops.maximum(state["max_exp_avg_sq"], second)
            state["max_exp_avg_sq"] = second
        correction1, correction2 = 1 - beta1**step, 1 - beta2**step
        denominator = ops.sqrt(second) / ops.sqrt(correction2) + options.number("eps")
        return value - first / denominator * (options.number("lr") / correction1)


class AdamW(Adam):
    """Loshchilov and Hutter 2019, Decoupled weight decay regularization, algorithm 2: Adam with decoupled decay."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: Rate = 1e-8,
        weight_decay: Rate = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
