"""Stochastic gradient descent."""

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
    counter,
    penalised,
    require,
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class SGD(Optimizer):
    """p - lr * g, with momentum, dampening, Nesterov's form and weight decay as in PyTorch.

    Sutskever et al. 2013, On the importance of initialization and momentum in deep learning.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        momentum: Rate = 0.0,
        dampening: Rate = 0.0,
        weight_decay: Rate = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        good = not group["nesterov"] or (group["momentum"] != 0 and group["dampening"] == 0)
        require(good, f"{type(self).__name__}: Nesterov momentum needs a momentum and no dampening")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        if not group["momentum"]:
            return {}
        buffer = {"momentum_buffer": zeros_for(parameter, "momentum_buffer")}
        return {**buffer, "step": counter(parameter)} if group["dampening"] else buffer

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        if self.decoupled:
            value = shrunk(value, options)
        else:
            grad = penalised(grad, value, options)
        if options.has("momentum"):
            grad = self._with_momentum(grad, state, options)
        return value - grad * options.number("lr")

    def _with_momentum(self, grad: Tensor, state: State, options: Options) -> Tensor:
        is_damped = options.has("dampening")
        known = "momentum_buffer" in state and (not is_damped or "step" in state)
        require(known, "momentum or dampening was zero when the optimizer was made, so there is no state for it")
        new = grad
        if is_damped:
            step = advanced(state)
            # the first step takes the gradient as it is
            new = grad * ops.where(step == 1, ops.ones_like(step), 1 - options.number("dampening"))
        momentum = options.number("momentum")
        buffer = state["momentum_buffer"] * momentum + new
        state["momentum_buffer"] = buffer
        return grad + buffer * momentum if options.flag("nesterov") else buffer


class SGDW(SGD):
    """SGD with decoupled weight decay: p * (1 - lr * weight_decay) - lr * g.

    Loshchilov and Hutter 2019, Decoupled weight decay regularization, algorithm 1, with the conventions of PyTorch's
    AdamW and SGD: the decay is multiplied by lr, and the momentum adds up gradients, not gradients times lr.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        momentum: Rate = 0.0,
        dampening: Rate = 0.0,
        weight_decay: Rate = 1e-2,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)
