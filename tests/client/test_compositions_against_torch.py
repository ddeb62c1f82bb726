"""Transforms of transforms, in every order, against torch.func and plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import telegrad as tg

torch: Any = pytest.importorskip("torch")

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

C = np.array([0.7, -0.4, 1.1])
X = np.array([0.3, -0.5, 0.8])
Vector = Callable[[Any], Any]
"""From a vector of three to a vector of three."""


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    with tg.connect(backend="numpy", new=True):
        yield


def start(x: Any) -> Any:
    return (x * x).sum() * x * 0.3 + x * x * 0.5


def c(like: Any) -> Any:
    return tg.asarray(C) if isinstance(like, tg.Tensor) else torch.tensor(C)


OURS: dict[str, Callable[[Vector], Vector]] = {
    "grad": lambda f: tg.grad(lambda x: (f(x) * c(x)).sum()),
    "jacobian": lambda f: lambda x: tg.jacobian(f)(x) @ c(x),
    "hessian": lambda f: lambda x: tg.hessian(lambda x: (f(x) * c(x)).sum())(x) @ c(x),
    "jvp": lambda f: lambda x: tg.jvp(f, (x,), (c(x),))[1],
    "vjp": lambda f: lambda x: tg.vjp(f, x)[1](c(x))[0],
    "vmap": lambda f: lambda x: tg.vmap(f)(tg.stack([x, x * 0.5, x * x])).sum(0),
    "checkpoint": tg.checkpoint,
    "scan": lambda f: lambda x: tg.scan(lambda h, s: (f(h) * s, h), x, tg.asarray(np.array([0.5, 0.8])))[0],
    "cond": lambda f: lambda x: tg.cond((x * c(x)).sum() > 0, f, lambda x: x * 2, x),
    "while": lambda f: (
        lambda x: tg.while_loop(
            lambda s: s[0] < 2, lambda s: (s[0] + 1, f(s[1]) * 0.6), (tg.asarray(0), x), max_trips=3
        )[1]
    ),
    "custom": lambda f: _with_rule(f),
}


def _with_rule(f: Vector) -> Vector:
    """f with its own derivative as a rule."""
    g = tg.custom_vjp(f)
    g.defvjp(lambda x: (f(x), x), lambda x, g: tg.vjp(f, x)[1](g))
    return g


def _scan(f: Vector) -> Vector:
    return lambda x: f(f(x) * 0.5) * 0.8


def _while(f: Vector) -> Vector:
    return lambda x: f(f(x) * 0.6) * 0.6


T = torch.func
THEIRS: dict[str, Callable[[Vector], Vector]] = {
    "grad": lambda f: T.grad(lambda x: (f(x) * c(x)).sum()),
    "jacobian": lambda f: lambda x: T.jacrev(f)(x) @ c(x),
    "hessian": lambda f: lambda x: T.jacrev(T.jacrev(lambda x: (f(x) * c(x)).sum()))(x) @ c(x),
    "jvp": lambda f: lambda x: T.jacrev(f)(x) @ c(x),
    "vjp": lambda f: lambda x: T.vjp(f, x)[1](c(x))[0],
    "vmap": lambda f: lambda x: f(x) + f(x * 0.5) + f(x * x),
    "checkpoint": lambda f: f,
    "scan": _scan,
    # both branches: what is not taken has no gradient
    "cond": lambda f: lambda x: torch.where((x * c(x)).sum() > 0, f(x), x * 2),
    "while": _while,
    "custom": lambda f: f,
}


def compare(names: Sequence[str]) -> None:
    ours: Vector = start
    theirs: Vector = start
    for name in names:
        ours, theirs = OURS[name](ours), THEIRS[name](theirs)

    found = tg.function(ours)(tg.asarray(X)).numpy()

    np.testing.assert_allclose(found, theirs(torch.tensor(X)).numpy(), rtol=1e-9, atol=1e-12)


PAIRS = list(product(OURS, repeat=2))


@pytest.mark.parametrize("names", [*product(OURS, repeat=1), *PAIRS[::8]], ids="-".join)
def test_one_transform_or_two(names: tuple[str, ...]) -> None:
    compare(names)


@pytest.mark.slow
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_two_transforms_in_every_order(names: tuple[str, ...]) -> None:
    compare(names)


TRIPLES = random.Random(0).sample(list(product(OURS, repeat=3)), 60)


@pytest.mark.slow
@pytest.mark.parametrize("names", TRIPLES, ids="-".join)
def test_three_transforms(names: tuple[str, ...]) -> None:
    compare(names)
