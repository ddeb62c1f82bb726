"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.errors import GraphError
from telegrad.optim.optimizer import Group, Optimizer, counter, number, zeros_for
from telegrad.tensor import Tensor, Variable


class SGD(Optimizer):
    """p - lr * g, with momentum, dampening, Nesterov's form and weight decay as in PyTorch.

    Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise GraphError("Nesterov momentum needs a momentum and no dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> dict[str, Variable]:
        if not group["momentum"]:
            return {}
        return {"momentum_buffer": zeros_for(parameter, "momentum"), "step": counter(parameter)}

    def update(self, parameter: Variable, grad: Tensor, state: dict[str, Variable], group: Group) -> None:
        if group["weight_decay"]:
            grad = grad + parameter * number(group, "weight_decay")
        if group["momentum"]:
            momentum = number(group, "momentum")
            step = state["step"]
            # the first step takes the gradient as it is, without dampening
            share = ops.where(step == 0, ops.ones_like(step), 1.0 - group["dampening"]) if group["dampening"] else 1.0
            buffer = state["momentum_buffer"] * momentum + grad * share
            state["momentum_buffer"].assign(buffer)
            step.assign(step + 1)
            grad = grad + buffer * momentum if group["nesterov"] else buffer
        parameter.assign(parameter - grad * number(group, "lr"))
