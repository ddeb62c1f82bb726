"""The models for JAX: a function of a dict of weights each, laid out as XLA's CPU backend likes them best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.shootout.lines import BETAS, DECAY, EPSILON, LEARNING_RATE, Array, Line

Weights = dict[str, Any]
State = tuple[Weights, Weights, Weights, Weights, Any]
"""Weights, both moments, running statistics, the number of steps."""


def train_step(line: Line) -> Callable[[State, Any, Any], tuple[State, Any]]:
    """A step of AdamW, compiled; the state that goes in is gone after it."""
    scores_of = _MODELS[line.kind]

    def loss(weights: Weights, running: Weights, x: Any, y: Any) -> tuple[Any, Weights]:
        scores, running = scores_of(line.sizes, weights, running, x)
        logs = jax.nn.log_softmax(scores.reshape(-1, scores.shape[-1]))
        return -jnp.take_along_axis(logs, y.reshape(-1, 1), axis=1).mean(), running

    def step(state: State, x: Any, y: Any) -> tuple[State, Any]:
        weights, first, second, running, count = state
        (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(weights, running, x, y)
        count = count + 1
        one, two = (1 - beta**count for beta in BETAS)
        first = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, second, gradients)
        weights = jax.tree.map(
            lambda w, m, v: (
                w * (1 - LEARNING_RATE * DECAY) - LEARNING_RATE / one * m / (jnp.sqrt(v) / jnp.sqrt(two) + EPSILON)
            ),
            weights,
            first,
            second,
        )
        return (weights, first, second, running, count), value

    return jax.jit(step, donate_argnums=0)


def first_state(weights: dict[str, Array]) -> State:
    """The state before the first step."""
    own = {name: jnp.asarray(_laid_out(name, array)) for name, array in weights.items()}
    zeros = [jax.tree.map(jnp.zeros_like, own) for _ in range(2)]
    running = {
        name.replace("weight", kind): jnp.full_like(array, kind == "var")
        for name, array in own.items()
        if name.startswith("norms.") and name.endswith("weight")
        for kind in ("mean", "var")
    }
    return own, zeros[0], zeros[1], running, jnp.float32(0)


def _laid_out(name: str, array: Array) -> Array:
    """[in, out] for a product, [rows, columns, in, out] for a convolution."""
    if name.startswith(("tokens", "places")) or array.ndim < 2:
        return array
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _affine(weights: Weights, name: str, x: Any) -> Any:
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _mlp(sizes: tuple[int, ...], weights: Weights, running: Weights, x: Any) -> tuple[Any, Weights]:
    for i in range(len(sizes) - 2):
        x = jax.nn.relu(_affine(weights, f"layers.{i}", x))
    return _affine(weights, f"layers.{len(sizes) - 2}", x), running


def _cnn(sizes: tuple[int, ...], weights: Weights, running: Weights, x: Any) -> tuple[Any, Weights]:
    x, new = x.transpose(0, 2, 3, 1), {}
    for i in range(len(sizes) - 3):
        x = lax.conv_general_dilated(
            x, weights[f"convs.{i}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x + weights[f"convs.{i}.bias"]
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        n = x.size / x.shape[-1]
        new[f"norms.{i}.mean"] = 0.9 * running[f"norms.{i}.mean"] + 0.1 * mean
        new[f"norms.{i}.var"] = 0.9 * running[f"norms.{i}.var"] + 0.1 * var * n / (n - 1)
        x = (x - mean) * lax.rsqrt(var + 1e-5) * weights[f"norms.{i}.weight"] + weights[f"norms.{i}.bias"]
        x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # the order of the last layer's weights
    return _affine(weights, "out", x), new


def _layer_norm(weights: Weights, name: str, x: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    x = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gpt(sizes: tuple[int, ...], weights: Weights, running: Weights, x: Any) -> tuple[Any, Weights]:
    _, length, width, layers, heads = sizes
    may = jnp.tril(jnp.ones((length, length), bool))
    x = weights["tokens.weight"][x] + weights["places.weight"]
    for i in range(layers):
        name = f"blocks.{i}"
        joint = _affine(weights, f"{name}.joint", _layer_norm(weights, f"{name}.norm_1", x))
        joint = joint.reshape(-1, length, 3, heads, width // heads)
        query, key, value = (joint[:, :, k].swapaxes(1, 2) for k in range(3))
        scores = query @ key.swapaxes(-1, -2) / math.sqrt(width // heads)
        seen = jax.nn.softmax(jnp.where(may, scores, -jnp.inf)) @ value
        x = x + _affine(weights, f"{name}.mixed", seen.swapaxes(1, 2).reshape(-1, length, width))
        inner = jax.nn.gelu(_affine(weights, f"{name}.up", _layer_norm(weights, f"{name}.norm_2", x)), approximate=True)
        x = x + _affine(weights, f"{name}.down", inner)
    return _affine(weights, "out", _layer_norm(weights, "norm", x)), running


def _lstm(sizes: tuple[int, ...], weights: Weights, running: Weights, x: Any) -> tuple[Any, Weights]:
    gates = x @ weights["lstm.weight_ih_l0"] + (weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"])
    zeros = jnp.zeros((x.shape[0], sizes[1]), x.dtype)

    def cell(state: tuple[Any, Any], part: Any) -> tuple[tuple[Any, Any], None]:
        h, c = state
        i, f, g, o = jnp.split(part + h @ weights["lstm.weight_hh_l0"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    (h, _), _ = lax.scan(cell, (zeros, zeros), gates.swapaxes(0, 1))
    return _affine(weights, "out", h), running


_MODELS = {"mlp": _mlp, "cnn": _cnn, "gpt": _gpt, "lstm": _lstm}
