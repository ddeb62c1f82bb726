"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Group, Optimizer, counter, number, zeros_for
from telegrad.tensor import Tensor, Variable


class Adam(Optimizer):
    """Kingma and Ba 2015, algorithm 1; weight decay is added to the gradient."""

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def begin(self, parameter: Variable, group: Group) -> dict[str, Variable]:
        return {
            "step": counter(parameter),
            "exp_avg": zeros_for(parameter, "exp_avg"),
            "exp_avg_sq": zeros_for(parameter, "exp_avg_sq"),
        }

    def update(self, parameter: Variable, grad: Tensor, state: dict[str, Variable], group: Group) -> None:
        beta1, beta2 = group["betas"]
        lr, decay = number(group, "lr"), group["weight_decay"]
        value: Tensor = parameter
        if decay and self.decoupled:
            value = value * (1 - lr * decay)
        elif decay:
            grad = grad + value * decay
        step = state["step"] + 1
        first = state["exp_avg"] * beta1 + grad * (1 - beta1)
        second = state["exp_avg_sq"] * beta2 + grad * grad * (1 - beta2)
        state["step"].assign(step)
        state["exp_avg"].assign(first)
        state["exp_avg_sq"].assign(second)
        correction1 = 1 - beta1**step
        correction2 = ops.sqrt(1 - beta2**step)
        denominator = ops.sqrt(second) / ops.astype(correction2, parameter.dtype) + group["eps"]
        size = ops.astype(lr / correction1, parameter.dtype)
        parameter.assign(value - first / denominator * size)


class AdamW(Adam):
    """Loshchilov and Hutter 2019, algorithm 2: Adam with decoupled weight decay."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
