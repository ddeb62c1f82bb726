"""Muon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import (
    Group,
    Number,
    Options,
    Rate,
    State,
    Variables,
    averaged,
    norm,
    require,
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Muon(Optimizer):
    """Jordan et al. 2024, Muon: an optimizer for hidden layers (kellerjordan.github.io/posts/muon). Matrices only.

    The momentum is made nearly orthogonal by ``ns_steps`` of a quintic Newton-Schulz iteration. ``adjust_lr_fn`` is
    "original" (or None), which scales by sqrt(max(1, rows / columns)), or "match_rms_adamw", by
    0.2 * sqrt(max(rows, columns)), of Liu et al. 2025, Muon is scalable, section 2.2.

    Unlike PyTorch, which iterates in bfloat16, this iterates in the parameter's dtype.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-3,
        weight_decay: Rate = 0.1,
        momentum: Rate = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: Rate = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        steps, adjust = group["ns_steps"], group["adjust_lr_fn"]
        require(0 <= steps < 100, f"Muon: ns_steps must be at least 0 and less than 100, not {steps}")
        require(len(group["ns_coefficients"]) == 3, "Muon: ns_coefficients are three numbers")
        require(adjust in (None, "original", "match_rms_adamw"), f"Muon: adjust_lr_fn {adjust!r} is not known")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        require(parameter.ndim == 2, f"Muon takes matrices, and {parameter.describe()} is {parameter.type}")
        return {"momentum_buffer": zeros_for(parameter, "momentum_buffer")}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        momentum = options.number("momentum")
        change = averaged(state, "momentum_buffer", grad, momentum)
        if options.flag("nesterov"):
            change = grad * (1 - momentum) + change * momentum
        coefficients, steps = options.flag("ns_coefficients"), options.flag("ns_steps")
        change = orthogonalised(change, coefficients=coefficients, steps=steps, eps=options.number("eps"))
        rows, columns = value.shape
        if options.flag("adjust_lr_fn") == "match_rms_adamw":
            ratio = 0.2 * max(rows, columns) ** 0.5
        else:
            ratio = max(1.0, rows / columns) ** 0.5
        return shrunk(value, options) - change * (options.number("lr") * ratio)


def orthogonalised(x: Tensor, *, coefficients: tuple[float, float, float], steps: int, eps: Number) -> Tensor:
    """x[m, n] with its singular values moved towards 1, by x <- a x + (b x x' + c (x x')^2) x."""
    a, b, c = coefficients
    is_tall = x.shape[0] > x.shape[1]
    x = x.mT if is_tall else x
    x = x / ops.maximum(norm(x), eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = x * a + (gram * b + gram @ gram * c) @ x
    return x.mT if is_tall else x
