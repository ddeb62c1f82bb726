"""Initial values: what is exact equals PyTorch's, and what is drawn has the distribution that it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import telegrad as tg
from telegrad.nn import init


@pytest.fixture(autouse=True)
def _session() -> Any:
    with tg.connect(backend="numpy", new=True, seed=3) as session:
        yield session


def _empty(*shape: int, dtype: tg.DType = tg.float32) -> tg.Variable:
    return tg.Parameter(tg.full(shape, math.nan, dtype=dtype))


def _distance(drawn: Any, cdf: Callable[[float], float]) -> float:
    """Kolmogorov's distance times the root of the number: above 1.95 once in a thousand times."""
    x = np.sort(drawn.ravel().astype(np.float64))
    expected = np.array([cdf(v) for v in x])
    ranks = np.arange(x.size + 1) / x.size
    return float(np.sqrt(x.size) * max((ranks[1:] - expected).max(), (expected - ranks[:-1]).max()))


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"),
    [(0.0, 1.0, -2.0, 2.0), (0.5, 0.02, 0.49, 0.6), (0.0, 1.0, 3.0, 4.0), (0.0, 1.0, -9.0, -8.0), (1.0, 2.0, -99, 99)],
)
def test_a_truncated_normal_is_one_within_its_bounds(mean: float, std: float, a: float, b: float) -> None:
    low, high = (a - mean) / std, (b - mean) / std
    sign = -1 if low > 0 else 1

    drawn = init.trunc_normal_(_empty(40, 100, dtype=tg.float64), mean, std, a, b).numpy()

    def cdf(x: float) -> float:
        ends = [math.erfc(-sign * v / math.sqrt(2)) for v in (low, (x - mean) / std, high)]
        return (ends[1] - ends[0]) / (ends[2] - ends[0])

    assert drawn.min() >= a
    assert drawn.max() <= b
    assert _distance(drawn, cdf) < 1.95


def test_the_quantile_is_the_inverse_of_the_normal_distribution() -> None:
    p = np.concatenate([np.geomspace(1e-300, 0.5, 200), 1 - np.geomspace(1e-15, 0.5, 100)])

    found = init._normal_quantile(tg.asarray(p)).numpy()

    np.testing.assert_allclose(found, [NormalDist().inv_cdf(v) for v in p], rtol=3e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.bfloat16])
def test_what_is_drawn_has_the_deviation_of_its_formula(dtype: tg.DType) -> None:
    shape = (64, 32, 3)  # fan in 96, fan out 192
    tanh, leaky = 5 / 3, math.sqrt(2 / (1 + 0.2**2))
    for fill, deviation in (
        (lambda w: init.xavier_uniform_(w, gain=tanh), tanh * math.sqrt(2 / 288)),
        (lambda w: init.xavier_normal_(w), math.sqrt(2 / 288)),
        (lambda w: init.kaiming_uniform_(w, a=0.2), leaky / math.sqrt(96)),
        (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / 192)),
        (lambda w: init.kaiming_normal_(w, nonlinearity="conv2d"), math.sqrt(1 / 96)),
    ):
        values = fill(_empty(*shape, dtype=dtype)).numpy().astype(np.float64)

        assert abs(values.std() / deviation - 1) < 0.03
        assert abs(values.mean()) < 0.05 * deviation


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (3, 2, 4), (1, 7)])
@pytest.mark.parametrize("dtype", [tg.float64, tg.float16])
def test_orthogonal_rows_or_columns_are_orthonormal(shape: tuple[int, ...], dtype: tg.DType) -> None:
    values = init.orthogonal_(_empty(*shape, dtype=dtype), gain=1.5).numpy().astype(np.float64)

    flat = values.reshape(shape[0], -1)
    gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(gram, 2.25 * np.eye(len(gram)), atol=1e-12 if dtype is tg.float64 else 2e-2)


def test_orthogonal_matrices_are_uniform() -> None:
    rotations = np.stack([init.orthogonal_(_empty(2, 2, dtype=tg.float64)).numpy() for _ in range(300)])

    angles = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    assert _distance(angles, lambda x: (x + math.pi) / (2 * math.pi)) < 1.95
    assert abs((np.linalg.det(rotations) > 0).mean() - 0.5) < 0.1


def test_sparse_has_its_zeros_in_every_column_and_in_random_rows() -> None:
    values = init.sparse_(_empty(10, 400), sparsity=0.25, std=0.1).numpy()

    zero = values == 0
    assert (zero.sum(axis=0) == 3).all()
    assert (np.abs(zero.mean(axis=1) - 0.3) < 0.1).all()
    assert abs(values[~zero].std() / 0.1 - 1) < 0.05


@pytest.mark.torch
def test_what_is_not_drawn_equals_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    for name, shape, how in (
        ("eye_", (3, 5), {}),
        ("eye_", (5, 3), {}),
        ("dirac_", (4, 6, 3), {}),
        ("dirac_", (6, 2, 4, 3), {"groups": 2}),
        ("dirac_", (6, 2, 1, 2, 3), {"groups": 3}),
        ("ones_", (2, 3), {}),
        ("zeros_", (), {}),
        ("constant_", (2,), {"val": 0.3}),
    ):
        wanted = getattr(torch.nn.init, name)(torch.empty(shape), **how).numpy()
        np.testing.assert_array_equal(getattr(init, name)(_empty(*shape), **how).numpy(), wanted, err_msg=name)
    for word in ("linear", "conv1d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert init.calculate_gain(word) == torch.nn.init.calculate_gain(word)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


def test_every_function_of_pytorch_is_there() -> None:
    torch = pytest.importorskip("torch")
    names = {n for n in vars(torch.nn.init) if n.endswith("_") and not n.startswith("_")}

    assert sorted(names - set(vars(init))) == []


def test_an_empty_tensor_stays_empty() -> None:
    for fill in (init.kaiming_uniform_, init.kaiming_normal_, init.orthogonal_, init.uniform_, init.trunc_normal_):
        assert fill(_empty(3, 0)).numpy().shape == (3, 0)


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    for make, words in (
        (lambda: init.eye_(_empty(3)), "two axes"),
        (lambda: init.dirac_(_empty(3, 3)), "3, 4 or 5 axes"),
        (lambda: init.dirac_(_empty(3, 3, 3), groups=2), "divisible into 2 groups"),
        (lambda: init.sparse_(_empty(3, 3, 3), 0.1), "two axes"),
        (lambda: init.sparse_(_empty(3, 3), 1.5), "from 0 to 1"),
        (lambda: init.orthogonal_(_empty(3)), "two axes or more"),
        (lambda: init.trunc_normal_(_empty(3), a=2.0, b=1.0), "must be below b"),
        (lambda: init.xavier_normal_(_empty(3)), "two axes or more"),
        (lambda: init.kaiming_normal_(_empty(3, 3), mode="fan"), "'fan_in' or 'fan_out'"),
        (lambda: init.calculate_gain("swish"), "is not known"),
    ):
        with pytest.raises(tg.TelegradError, match=words):
            make()
