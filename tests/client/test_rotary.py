"""Rotary places against complex rotations, and what they are for; focal loss against its formula."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import telegrad as tg
from telegrad import nn
from telegrad.errors import ShapeError

X = np.random.default_rng(0).normal(size=(2, 3, 7, 8))


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    with tg.connect(backend="numpy", new=True):
        yield


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("offset", [0, 5])
def test_pairs_turn_as_complex_numbers_do(interleaved: bool, offset: int) -> None:
    layer = nn.RotaryEmbedding(8, 100.0, interleaved=interleaved)
    pairs = X[..., ::2] + 1j * X[..., 1::2] if interleaved else X[..., :4] + 1j * X[..., 4:]
    rates = 100.0 ** (-np.arange(0, 8, 2) / 8)
    turned = pairs * np.exp(1j * (np.arange(7) + offset)[:, None] * rates)
    parts = [turned.real, turned.imag]
    wanted = np.stack(parts, -1).reshape(X.shape) if interleaved else np.concatenate(parts, -1)

    np.testing.assert_allclose(layer(tg.asarray(X), offset).numpy(), wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer(tg.asarray(X), tg.asarray(offset)).numpy(), wanted, rtol=1e-12, atol=1e-13)


def test_products_depend_on_the_distance_alone() -> None:
    layer = nn.RotaryEmbedding(8)
    q, k = (tg.asarray(np.broadcast_to(X[0, 0, i], (7, 8)).copy()) for i in (0, 1))

    scores = (layer(q) @ layer(k).T).numpy()

    for distance in range(-3, 4):
        line = np.diagonal(scores, distance)
        np.testing.assert_allclose(line, line[0], rtol=1e-12)


def test_what_cannot_turn_is_refused() -> None:
    with pytest.raises(ShapeError, match="even"):
        nn.RotaryEmbedding(7)
    with pytest.raises(ShapeError, match=r"takes \[..., time, 8\]"):
        nn.RotaryEmbedding(8)(tg.zeros((3, 4)))


@pytest.mark.parametrize("alpha", [0.25, -1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_focal_loss_is_its_formula(alpha: float, reduction: str) -> None:
    x, y = X[0, 0], (X[1, 0] > 0).astype(np.float64)
    p = 1 / (1 + np.exp(-x))
    p_t = np.where(y == 1, p, 1 - p)
    weight = np.where(y == 1, alpha, 1 - alpha) if alpha >= 0 else 1.0
    wanted = -weight * (1 - p_t) ** 2.0 * np.log(p_t)

    found = nn.functional.sigmoid_focal_loss(tg.asarray(x), tg.asarray(y), alpha, reduction=reduction)

    reduced = {"none": wanted, "mean": wanted.mean(), "sum": wanted.sum()}[reduction]
    np.testing.assert_allclose(found.numpy(), reduced, rtol=1e-10)
