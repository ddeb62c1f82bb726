"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import Group, Options, Rate, State, Variables, averaged, shrunk, zeros_for
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Lion(Optimizer):
    """Chen et al. 2023, Symbolic discovery of optimization algorithms, algorithm 2: the sign of a momentum."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: Rate = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {"exp_avg": zeros_for(parameter, "exp_avg")}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        beta1, beta2 = options.pair("betas")
        direction = ops.sign(state["exp_avg"] * beta1 + grad * (1 - beta1))
        averaged(state, "exp_avg", grad, beta2)
        return shrunk(value, options) - direction * options.number("lr")
