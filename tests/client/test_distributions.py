"""Random distributions: by Kolmogorov and Smirnov against their functions, by counts, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import telegrad as tg
from telegrad.errors import DTypeError, GraphError, ShapeError

N = 20_000


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    with tg.connect(backend="numpy", new=True, seed=3):
        yield


def normal(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


DISTRIBUTIONS: dict[str, tuple[Callable[[tg.DType], tg.Tensor], Callable[[float], float]]] = {
    "exponential": (lambda d: tg.random.exponential(N, 2.0, dtype=d), lambda x: 1 - math.exp(-x / 2)),
    "gumbel": (lambda d: tg.random.gumbel(N, 1.0, 3.0, dtype=d), lambda x: math.exp(-math.exp(-(x - 1) / 3))),
    "logistic": (lambda d: tg.random.logistic(N, -1.0, 0.5, dtype=d), lambda x: 1 / (1 + math.exp(-(x + 1) / 0.5))),
    "laplace": (
        lambda d: tg.random.laplace(N, 2.0, 1.5, dtype=d),
        lambda x: 0.5 * math.exp((x - 2) / 1.5) if x < 2 else 1 - 0.5 * math.exp(-(x - 2) / 1.5),
    ),
    "truncated_normal": (
        lambda d: tg.random.truncated_normal(N, -1.0, 2.0, dtype=d),
        lambda x: (normal(x) - normal(-1)) / (normal(2) - normal(-1)),
    ),
}


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64], ids=str)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_numbers_have_their_distribution(name: str, dtype: tg.DType) -> None:
    draw, function = DISTRIBUTIONS[name]

    x = draw(dtype)

    assert x.dtype is dtype
    steps = np.array([function(float(v)) for v in np.sort(x.numpy())])
    distance = max(np.abs(steps - np.arange(N) / N).max(), np.abs(steps - np.arange(1, N + 1) / N).max())
    assert distance < 1.95 / math.sqrt(N)  # one in a thousand is further away


def test_tails_are_finite_and_inside() -> None:
    x = tg.random.truncated_normal(N, 3.0, 3.5).numpy()

    assert x.min() >= 3.0 and x.max() <= 3.5
    for draw, _ in DISTRIBUTIONS.values():
        assert np.isfinite(tg.astype(draw(tg.float16), tg.float32).numpy()).all()


def frequencies(x: tg.Tensor, classes: int) -> np.ndarray:
    return np.bincount(x.numpy().reshape(-1), minlength=classes) / x.size


def test_categories_come_with_their_probabilities() -> None:
    p = np.array([0.1, 0.0, 0.6, 0.3])
    logits = tg.log(tg.asarray(p))

    drawn = tg.random.categorical(logits, N)
    several = tg.random.categorical(tg.stack([logits, tg.flip(logits)], axis=1), (N, 2), axis=0)

    np.testing.assert_allclose(frequencies(drawn, 4), p, atol=0.015)
    np.testing.assert_allclose(frequencies(several[:, 1], 4), p[::-1], atol=0.015)
    assert tg.random.categorical(tg.zeros((3, 5))).shape == (3,)


def test_multinomial_with_and_without_replacement() -> None:
    weights = tg.asarray(np.array([[1.0, 2.0, 5.0], [8.0, 1.0, 1.0]]))

    again = tg.random.multinomial(weights, N, replacement=True)
    once = tg.random.multinomial(tg.broadcast_to(weights[0], (N, 3)), 2).numpy()

    assert again.shape == (2, N)
    np.testing.assert_allclose(frequencies(again[1], 3), [0.8, 0.1, 0.1], atol=0.015)
    assert (once[:, 0] != once[:, 1]).all()
    # the first is drawn by the weights, the second by those that are left
    np.testing.assert_allclose(np.bincount(once[:, 0]) / N, [1 / 8, 2 / 8, 5 / 8], atol=0.015)
    np.testing.assert_allclose((once == 0).any(1).mean(), 1 / 8 + 2 / 8 / 6 + 5 / 8 / 3, atol=0.015)


def test_choice_of_numbers_and_elements() -> None:
    assert sorted(tg.random.choice(6, 6, replace=False).tolist()) == list(range(6))
    assert tg.random.choice(6, (2, 3), replace=False, p=tg.ones(6)).shape == (2, 3)
    drawn = tg.random.choice(tg.asarray([10.0, 20.0]), (N,), p=tg.asarray([0.25, 0.75]))
    np.testing.assert_allclose((drawn == 20.0).numpy().mean(), 0.75, atol=0.015)
    np.testing.assert_allclose(frequencies(tg.random.choice(4, N), 4), [0.25] * 4, atol=0.015)


def test_each_call_of_a_function_draws_anew() -> None:
    f = tg.function(lambda: tg.random.choice(1000, 5))

    assert f().tolist() != f().tolist()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GraphError, match="must be below upper"):
        tg.random.truncated_normal(3, 1.0, 1.0)
    with pytest.raises(DTypeError, match="floating-point logits"):
        tg.random.categorical(tg.asarray([1, 2]))
    with pytest.raises(ShapeError, match="no classes"):
        tg.random.categorical(tg.zeros((2, 0)))
    with pytest.raises(ShapeError, match=r"must end in \[2\]"):
        tg.random.categorical(tg.zeros((2, 3)), 5)
    with pytest.raises(ShapeError, match="4 of 3 classes"):
        tg.random.multinomial(tg.ones(3), 4)
    with pytest.raises(ShapeError, match="without replacement"):
        tg.random.choice(3, 4, replace=False)
    with pytest.raises(ShapeError, match="p must have"):
        tg.random.choice(3, 4, p=tg.ones(4))
