"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.creation import zeros
from telegrad.info import finfo
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
    norm,
    require,
    shrunk,
    zeros_for,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Adafactor(Optimizer):
    """Shazeer and Stern 2018, Adafactor, algorithms 4 and 5: the second moment of a matrix as row and column means.

    The step is relative to the parameter's root mean square, and limited by ``d``; ``eps`` is (that of the second
    moment, the dtype's own if None; the least root mean square). As in PyTorch, decay is lr * weight_decay, and
    ``lr`` bounds the relative step 1 / sqrt(t).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 1e-2,
        beta2_decay: Rate = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: Rate = 1.0,
        weight_decay: Rate = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        decay, d, (eps1, eps2) = group["beta2_decay"], group["d"], group["eps"]
        require(callable(decay) or decay <= 0, f"Adafactor: beta2_decay must be at most 0, not {decay}")
        require(callable(d) or d >= 1, f"Adafactor: d must be at least 1, not {d}")
        require((eps1 is None or eps1 >= 0) and eps2 >= 0, f"Adafactor: eps must be at least 0, not {(eps1, eps2)}")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        if parameter.ndim < 2:
            return {"step": counter(parameter), "variance": zeros_for(parameter, "variance")}
        rows, columns = (*parameter.shape[:-1], 1), (*parameter.shape[:-2], 1, parameter.shape[-1])
        return {
            "step": counter(parameter),
            "row_var": Variable(zeros(rows, dtype=parameter.dtype), name=f"{parameter.name}.row_var"),
            "col_var": Variable(zeros(columns, dtype=parameter.dtype), name=f"{parameter.name}.col_var"),
        }

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        eps1, eps2 = options.flag("eps")
        eps1 = finfo(value.dtype).eps if eps1 is None else eps1
        step = advanced(state)
        relative = ops.minimum(options.number("lr"), 1 / ops.sqrt(step))
        size = ops.maximum(eps2, norm(value) / value.size**0.5) * relative
        beta2 = 1 - step ** options.number("beta2_decay")
        square = grad * grad
        if value.ndim < 2:
            variance = averaged(state, "variance", square, beta2)
        else:
            rows = averaged(state, "row_var", ops.mean(square, axis=-1, keepdims=True), beta2)
            columns = averaged(state, "col_var", ops.mean(square, axis=-2, keepdims=True), beta2)
            variance = rows * columns / ops.maximum(ops.mean(rows, axis=-2, keepdims=True), eps1)
        change = grad / ops.sqrt(ops.maximum(variance, eps1 * eps1))
        limit = ops.maximum(1.0, norm(change) / (value.size**0.5 * options.number("d")))
        return shrunk(value, options) - change * (size / limit)
