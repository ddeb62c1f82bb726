"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import Group, Options, Rate, State, Variables, advanced, counter, filled_for, penalised
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Adagrad(Optimizer):
    """Duchi et al. 2011, Adaptive subgradient methods, figure 1 with a diagonal matrix."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-2,
        lr_decay: Rate = 0.0,
        weight_decay: Rate = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Rate = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {"step": counter(parameter), "sum": filled_for(parameter, "sum", group["initial_accumulator_value"])}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        grad = penalised(grad, value, options)
        rate = options.number("lr") / (1 + (advanced(state) - 1) * options.number("lr_decay"))
        total = state["sum"] + grad * grad
        state["sum"] = total
        return value - grad / (ops.sqrt(total) + options.number("eps")) * rate
