"""RMSprop."""

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


class RMSprop(Optimizer):
    """Tieleman and Hinton 2012, lecture 6.5; ``centered`` as in Graves 2013, equations 38 to 45.

    As in PyTorch, eps is added after the root.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-2,
        alpha: Rate = 0.99,
        eps: Rate = 1e-8,
        weight_decay: Rate = 0.0,
        momentum: Rate = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        alpha = group["alpha"]
        require(callable(alpha) or alpha >= 0, f"RMSprop: alpha must be at least 0, not {alpha}")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        names = ["square_avg"]
        names += ["momentum_buffer"] if group["momentum"] else []
        names += ["grad_avg"] if group["centered"] else []
        return {"step": counter(parameter), **{name: zeros_for(parameter, name) for name in names}}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        alpha = options.number("alpha")
        grad = penalised(grad, value, options)
        advanced(state)
        spread = averaged(state, "square_avg", grad * grad, alpha)
        if options.flag("centered"):
            mean = averaged(state, "grad_avg", grad, alpha)
            spread = spread - mean * mean
        change = grad / (ops.sqrt(spread) + options.number("eps"))
        if options.has("momentum"):
            require(
                "momentum_buffer" in state, "momentum was zero when the optimizer was made: there is no state for it"
            )
            change = state["momentum_buffer"] * options.number("momentum") + change
            state["momentum_buffer"] = change
        return value - change * options.number("lr")
