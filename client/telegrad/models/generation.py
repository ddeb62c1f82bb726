"""Writing token by token: which token is next, and where it is put."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

from telegrad import context, creation, ops
from telegrad.errors import GraphError
from telegrad.nn.module import Module
from telegrad.ops import random as philox
from telegrad.ops.searching import topk
from telegrad.tensor import Tensor


@contextmanager
def evaluating(module: Module) -> Generator[None, None, None]:
    """Evaluation mode without gradients inside; afterwards each module has the mode that it had."""
    modes = [(each, each._training) for each in module.modules()]
    module.eval()
    try:
        with context.no_grad():
            yield
    finally:
        for each, mode in modes:
            object.__setattr__(each, "_training", mode)


def check_choice(temperature: float, top_k: int | None) -> None:
    """GraphError unless a token can be chosen so."""
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise GraphError(f"generate: temperature {temperature} must not be negative, and top_k {top_k} be positive")


def written(tokens: Tensor, place: Tensor, scores: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """tokens[batch, length] with the one at ``place`` chosen by scores[batch, classes].

    The likeliest, or with a ``temperature`` one drawn by the scores over it, of the ``top_k`` likeliest if given: the
    largest once Gumbel noise is added.
    """
    if temperature > 0:
        if top_k is not None and top_k < scores.shape[1]:
            least = topk(scores, top_k)[0][:, -1:]
            scores = ops.where(scores < least, scores.literal(-math.inf, scores.dtype), scores)
        key, stream = (context.TRACE.get() or scores.session).random_key()
        drawn = ops.maximum(philox.uniform(key, shape=scores.shape, stream=stream, dtype=scores.dtype), 2.0**-25)
        scores = scores / temperature - ops.log(-ops.log(drawn))
    chosen = ops.astype(scores.argmax(1), tokens.dtype).unsqueeze(1)
    return ops.where(ops.equal(creation.arange(tokens.shape[1]), place), chosen, tokens)
