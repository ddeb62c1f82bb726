"""Gradient clipping. The decision is part of the graph: nothing is read, and it works inside ``tg.function``."""

from __future__ import annotations

import math
from collections.abc import Iterable

from telegrad import context, ops
from telegrad.creation import zeros
from telegrad.errors import GraphError
from telegrad.ir import types
from telegrad.tensor import Tensor


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: Tensor | float, norm_type: float = 2.0) -> Tensor:
    """Scale all gradients so that their norm, as of one long vector, is at most ``max_norm``; returns the norm before.

    The norm is a 0-d tensor, in float32 at least; ``norm_type`` may be ``inf``. As in PyTorch gradients are multiplied
    by min(1, max_norm / (norm + 1e-6)), so a norm that is not finite makes them NaN or zero.
    Pascanu et al. 2013, On the difficulty of training recurrent neural networks, algorithm 1.
    """
    if norm_type <= 0:
        raise GraphError(f"clip_grad_norm_: norm_type must be more than 0, not {norm_type}")
    with context.no_grad():
        found = _with_gradients(parameters)
        if not found:
            return zeros(())
        total = _total_norm([grad for _, grad in found], norm_type)
        _scale(found, max_norm, total)
    return total


def get_total_norm(tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0) -> Tensor:
    """The norm of all tensors, as of one long vector: a 0-d tensor, in float32 at least."""
    if norm_type <= 0:
        raise GraphError(f"get_total_norm: norm_type must be more than 0, not {norm_type}")
    every = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    return _total_norm(every, norm_type) if every else zeros(())


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: Tensor | float, total_norm: Tensor) -> None:
    """Scale all gradients by min(1, max_norm / (total_norm + 1e-6)), with a norm from `get_total_norm`."""
    with context.no_grad():
        _scale(_with_gradients(parameters), max_norm, total_norm)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of every gradient to [-clip_value, clip_value]."""
    with context.no_grad():
        for parameter, grad in _with_gradients(parameters):
            parameter.grad = ops.clip(grad, -clip_value, clip_value)


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    every = [parameters] if isinstance(parameters, Tensor) else parameters
    return [(p, p.grad) for p in every if p.grad is not None]


def _scale(found: list[tuple[Tensor, Tensor]], max_norm: Tensor | float, total: Tensor) -> None:
    factor = ops.minimum(max_norm / (total + 1e-6), 1.0)
    for parameter, grad in found:
        parameter.grad = ops.astype(grad * factor, grad.dtype)


def _total_norm(grads: list[Tensor], norm_type: float) -> Tensor:
    dtype = types.float32
    for grad in grads:
        dtype = types.promote(dtype, grad.dtype)
    sizes = [ops.abs(ops.astype(grad, dtype)) for grad in grads]
    if norm_type == math.inf:
        return ops.max(ops.stack([ops.max(x) for x in sizes]))
    if norm_type == 2:
        return ops.sqrt(ops.sum(ops.stack([ops.sum(x * x) for x in sizes])))
    return ops.sum(ops.stack([ops.sum(x**norm_type) for x in sizes])) ** (1 / norm_type)
