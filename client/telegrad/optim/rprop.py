"""Rprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import Group, Options, State, Variables, advanced, counter, filled_for, require, zeros_for
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Rprop(Optimizer):
    """Riedmiller and Braun 1993, A direct adaptive method for faster backpropagation learning, for whole batches.

    As in PyTorch, where a gradient changes sign the step is not taken back; ``lr`` is the first step size.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    def check(self, group: Group) -> None:
        super().check(group)
        low, high = group["etas"]
        require(0 < low < 1 < high, f"Rprop: etas must be below and above 1, not {low} and {high}")
        require(not callable(group["lr"]), "Rprop: lr is where step sizes start and cannot be a schedule")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        return {
            "step": counter(parameter),
            "prev": zeros_for(parameter, "prev"),
            "step_size": filled_for(parameter, "step_size", group["lr"]),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        low, high = options.pair("etas")
        smallest, largest = options.pair("step_sizes")
        advanced(state)
        agreement = grad * state["prev"]
        one = ops.ones_like(agreement)
        factor = ops.where(agreement > 0, one * high, ops.where(agreement < 0, one * low, one))
        size = ops.clip(state["step_size"] * factor, smallest, largest)
        grad = ops.where(agreement < 0, 0.0, grad)
        state["step_size"] = size
        state["prev"] = grad
        return value - ops.sign(grad) * size
