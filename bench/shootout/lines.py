"""The work lines: sizes, initial weights and data, in NumPy, so that every peer begins with the same numbers.

Weights have the names and shapes of PyTorch's modules. Labels are drawn at random and rows come in pairs of equal
inputs: no model can learn them all, so no loss reaches zero and no gradient the range of denormals, where every
machine is slow, however many steps are measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shapes = dict[str, tuple[int, ...]]

LEARNING_RATE, BETAS, EPSILON, DECAY = 1e-3, (0.9, 0.999), 1e-8, 1e-2
"""AdamW's, for every peer and every parameter."""
POOL = 8
"""So many batches are gone through in turn."""


@dataclass(frozen=True)
class Line:
    """A model, an input and a batch. ``sizes`` are the model's numbers, in an order of its own kind."""

    name: str
    title: str
    goal: float
    """What design 3 wants against the best peer."""
    kind: str
    sizes: tuple[int, ...]
    batch: int

    def data(self) -> tuple[Array, Array]:
        """x and y of all batches, one after the other."""
        rng = np.random.default_rng(1)
        rows = self.batch * POOL
        x = KINDS[self.kind].inputs(rng, rows // 2, self.sizes)
        y = rng.integers(0, KINDS[self.kind].classes(self.sizes), (rows, *KINDS[self.kind].targets(self.sizes)))
        return np.repeat(x, 2, axis=0), y

    def weights(self) -> dict[str, Array]:
        """The initial weights, float32: as PyTorch draws them, but from NumPy's generator."""
        rng = np.random.default_rng(0)
        shapes = KINDS[self.kind].shapes(self.sizes)
        return {name: _drawn(rng, name, shape, shapes) for name, shape in shapes.items()}

    def of_batch(self, batch: int) -> Line:
        """The same with another number of rows."""
        return replace(self, batch=batch)


@dataclass(frozen=True)
class Kind:
    """A model as far as its data and weights go, each from its sizes."""

    shapes: Callable[[tuple[int, ...]], Shapes]
    inputs: Callable[[np.random.Generator, int, tuple[int, ...]], Array]
    classes: Callable[[tuple[int, ...]], int]
    targets: Callable[[tuple[int, ...]], tuple[int, ...]]
    """The shape of one row's labels."""


def _drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...], shapes: Shapes) -> Array:
    if name.startswith(("tokens", "places")):
        return rng.normal(0, 0.02, shape).astype(np.float32)
    if "norm" in name:
        return (np.ones if name.endswith("weight") else np.zeros)(shape, np.float32)
    if name.startswith("lstm"):
        fan_in = shape[0] // 4  # an LSTM's bound is that of its hidden size
    else:
        fan_in = math.prod(shapes[name.replace("bias", "weight")][1:])
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _affine(name: str, outputs: int, inputs: int, *window: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, *window), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _mlp(sizes: tuple[int, ...]) -> Shapes:
    found: Shapes = {}
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        found |= _affine(f"layers.{i}", outputs, inputs)
    return found


def _cnn(sizes: tuple[int, ...]) -> Shapes:
    side, *channels, classes = sizes
    found: Shapes = {}
    for i, (inputs, outputs) in enumerate(pairwise(channels)):
        found |= _affine(f"convs.{i}", outputs, inputs, 3, 3) | _norm(f"norms.{i}", outputs)
    side //= 2 ** (len(channels) - 1)
    return found | _affine("out", classes, channels[-1] * side * side)


def _gpt(sizes: tuple[int, ...]) -> Shapes:
    vocabulary, length, width, layers, _ = sizes
    found: Shapes = {"tokens.weight": (vocabulary, width), "places.weight": (length, width)}
    for i in range(layers):
        found |= _norm(f"blocks.{i}.norm_1", width) | _affine(f"blocks.{i}.joint", 3 * width, width)
        found |= _affine(f"blocks.{i}.mixed", width, width) | _norm(f"blocks.{i}.norm_2", width)
        found |= _affine(f"blocks.{i}.up", 4 * width, width) | _affine(f"blocks.{i}.down", width, 4 * width)
    return found | _norm("norm", width) | _affine("out", vocabulary, width)


def _lstm(sizes: tuple[int, ...]) -> Shapes:
    inputs, hidden, _, classes = sizes
    return {
        "lstm.weight_ih_l0": (4 * hidden, inputs),
        "lstm.weight_hh_l0": (4 * hidden, hidden),
        "lstm.bias_ih_l0": (4 * hidden,),
        "lstm.bias_hh_l0": (4 * hidden,),
    } | _affine("out", classes, hidden)


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)


KINDS = {
    # the widths of the layers, from the input to the classes
    "mlp": Kind(_mlp, lambda rng, rows, s: _normal(rng, rows, s[0]), lambda s: s[-1], lambda s: ()),
    # side, channels from the input on, classes
    "cnn": Kind(_cnn, lambda rng, rows, s: _normal(rng, rows, s[1], s[0], s[0]), lambda s: s[-1], lambda s: ()),
    # vocabulary, length, width, layers, heads
    "gpt": Kind(_gpt, lambda rng, rows, s: rng.integers(0, s[0], (rows, s[1])), lambda s: s[0], lambda s: (s[1],)),
    # inputs, hidden, length, classes
    "lstm": Kind(_lstm, lambda rng, rows, s: _normal(rng, rows, s[2], s[0]), lambda s: s[-1], lambda s: ()),
}
LINES = {
    line.name: line
    for line in (
        Line("mlp", "MLP 784-256-256-10, batch 128", 1.2, "mlp", (784, 256, 256, 10), 128),
        Line("wide", "MLP 784-2048-2048-10, batch 256", 1.1, "mlp", (784, 2048, 2048, 10), 256),
        Line("cnn", "CNN 3x32x32, 32-64-128 channels, batch norm, batch 64", 1.5, "cnn", (32, 3, 32, 64, 128, 10), 64),
        Line("gpt", "GPT 2 layers, d 128, 4 heads, T 128, vocab 96, batch 16", 1.5, "gpt", (96, 128, 128, 2, 4), 16),
        Line("lstm", "LSTM in 64, hidden 128, T 64, batch 32", 1.5, "lstm", (64, 128, 64, 10), 32),
    )
}
MEMORY_LINES = {
    line.name: line
    for line in (
        Line("wide batch", "GPT as above, T 128, batch 512", 1.0, "gpt", (96, 128, 128, 2, 4), 512),
        Line("short", "GPT as above, T 256, batch 32", 1.0, "gpt", (96, 256, 128, 2, 4), 32),
        Line("long", "GPT as above, T 2048, batch 4", 1.0, "gpt", (96, 2048, 128, 2, 4), 4),
    )
}
"""Of these only the memory is measured: of one whose activations pass 1 GB, and of equally many tokens in short and in
long sequences, which take the same where attention's memory is linear in the length."""  # fmt: skip
