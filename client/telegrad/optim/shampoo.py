"""Shampoo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from telegrad import ops
from telegrad.control_flow import cond
from telegrad.creation import eye, full, zeros
from telegrad.ir import types
from telegrad.ir.types import DType, product
from telegrad.ops.decompositions import eigh
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.update import (
    Group,
    Number,
    Options,
    Rate,
    State,
    Variables,
    advanced,
    averaged,
    counter,
    penalised,
    require,
)
from telegrad.tensor import Tensor
from telegrad.variable import Variable


class Shampoo(Optimizer):
    """Gupta et al. 2018, Shampoo: preconditioned stochastic tensor optimization, algorithm 2.

    A tensor of k axes has a matrix for each: eps * I plus the sum over all steps of the gradient's contraction with
    itself over the other axes. The gradient is multiplied along every axis by that matrix to the power -1/(2k): for a
    matrix L^(-1/4) G R^(-1/4). The roots are made from eigenvalues in float64, at the first step and then every
    ``update_freq`` steps. An axis longer than ``max_dim`` has the diagonal of its matrix alone. A scalar is a
    vector of one element. ``momentum`` averages the gradient that is multiplied, not that in the matrices.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Rate = 0.1,
        momentum: Rate = 0.0,
        weight_decay: Rate = 0.0,
        eps: Rate = 1e-4,
        update_freq: int = 1,
        max_dim: int = 1200,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eps": eps,
            "update_freq": update_freq,
            "max_dim": max_dim,
        }
        super().__init__(params, defaults)

    def check(self, group: Group) -> None:
        super().check(group)
        eps, freq, longest = group["eps"], group["update_freq"], group["max_dim"]
        require(not callable(eps) and eps > 0, "Shampoo: eps must be a number above 0, for the matrices begin with it")
        require(isinstance(freq, int) and freq >= 1, f"Shampoo: update_freq must be at least 1, not {freq}")
        require(isinstance(longest, int) and longest >= 0, f"Shampoo: max_dim must be at least 0, not {longest}")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        name, dtype = parameter.name or "parameter", _wide(parameter)
        state = {"step": counter(parameter)}
        if callable(group["momentum"]) or group["momentum"] != 0:
            state["momentum_buffer"] = Variable(zeros(_shape(parameter), dtype=dtype), name=f"{name}.momentum_buffer")
        for axis, n in enumerate(_shape(parameter)):
            one = full((n,), 1.0, dtype=dtype) if n > group["max_dim"] else eye(n, dtype=dtype)
            state[f"statistic_{axis}"] = Variable(one * group["eps"], name=f"{name}.statistic_{axis}")
            if group["update_freq"] > 1:
                state[f"root_{axis}"] = Variable(one, name=f"{name}.root_{axis}")
        return state

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        dtype = _wide(value)
        grad = ops.reshape(ops.astype(penalised(grad, value, options), dtype), _shape(value))
        is_due = ops.equal(ops.remainder(advanced(state) - 1, options.flag("update_freq")), 0)
        change = averaged(state, "momentum_buffer", grad, options.number("momentum")) if _has(state) else grad
        for axis in range(grad.ndim):
            key, root = f"statistic_{axis}", f"root_{axis}"
            state[key] = statistic = state[key] + _contraction(grad, axis, is_diagonal=state[key].ndim == 1)
            power = _power(grad.ndim, options.number("eps"))
            if root in state:
                state[root] = factor = cond(
                    is_due, lambda s, _, f=power: f(s), lambda _, old: old, statistic, state[root]
                )
            else:
                factor = power(statistic)
            change = _multiplied(change, factor, axis)
        step = ops.reshape(change, value.shape) * options.number("lr")
        return ops.astype(ops.astype(value, dtype) - step, value.dtype)


def _has(state: State) -> bool:
    return "momentum_buffer" in state


def _wide(x: Tensor) -> DType:
    """Eigenvalues are found in float32 or float64."""
    return types.promote(x.dtype, types.float32)


def _shape(x: Tensor) -> tuple[int, ...]:
    return x.shape or (1,)


def _contraction(grad: Tensor, axis: int, *, is_diagonal: bool) -> Tensor:
    """The gradient times itself over all axes but one -> [n, n], or the diagonal of that."""
    others = tuple(a for a in range(grad.ndim) if a != axis)
    if is_diagonal:
        return ops.sum(grad * grad, axis=others)
    rows = ops.reshape(ops.moveaxis(grad, axis, 0), (grad.shape[axis], product(grad.shape[a] for a in others)))
    return rows @ rows.mT


def _power(axes: int, eps: Number) -> Any:
    """The function from a statistic[n, n] or [n] to its power -1 / (2 * axes)."""

    def power(statistic: Tensor) -> Tensor:
        wide = ops.astype(statistic, types.float64)
        if statistic.ndim == 1:
            return ops.astype(wide ** (-0.5 / axes), statistic.dtype)
        values, vectors = eigh(wide)
        # no eigenvalue is below eps, but those of a float32 sum may be found there
        scaled = vectors * ops.maximum(values, eps) ** (-0.5 / axes)
        return ops.astype(scaled @ vectors.mT, statistic.dtype)

    return power


def _multiplied(x: Tensor, factor: Tensor, axis: int) -> Tensor:
    """x multiplied along one axis by a matrix, or by a diagonal."""
    front = ops.moveaxis(x, axis, -1)
    return ops.moveaxis(front * factor if factor.ndim == 1 else front @ factor, -1, axis)
