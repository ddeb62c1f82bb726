"""The problem on which optimizers are compared: three parameters, written once for telegrad, PyTorch and NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import telegrad as tg

Array = npt.NDArray[Any]
Make = Callable[[list[Any]], Any]
"""Makes an optimizer of the parameters."""

STEPS = 50


def start(dtype: Any = np.float64) -> tuple[Array, list[Array]]:
    """The data x[6, 4], and where a matrix, a vector and a scalar start."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 4)).astype(dtype)
    return x, [np.asarray(rng.standard_normal(shape), dtype=dtype) for shape in ((4, 3), (5,), ())]


def loss(library: Any, x: Any, w: Any, v: Any, s: Any) -> Any:
    """The function to minimise; ``library`` has sin and cos."""
    return (library.sin(x @ w) ** 2).mean() + (v**4).sum() * 0.1 + (v * s).sum() + library.cos(s)


def gradients(x: Array, w: Array, v: Array, s: Array) -> list[Array]:
    """Its gradients by hand."""
    y = x @ w
    return [x.T @ (2 * np.sin(y) * np.cos(y)) / y.size, 0.4 * v**3 + s, v.sum() - np.sin(s)]


def ours(
    make: Callable[[list[Any]], Any], *, is_eager: bool, steps: int = STEPS, dtype: Any = np.float64
) -> list[Array]:
    """The parameters after each step, all in one vector."""
    data, values = start(dtype)
    x, parameters = tg.asarray(data), [tg.Parameter(value) for value in values]
    optimizer = make(parameters)

    def step() -> None:
        optimizer.minimize(loss(tg, x, *parameters))

    run = step if is_eager else tg.function(step)
    found: list[Array] = []
    for _ in range(steps):
        run()
        found.append(together([p.numpy() for p in parameters]))
    assert is_eager or run.traces == 1
    return found


def torchs(torch: Any, make: Make, *, steps: int = STEPS, dtype: Any = np.float64) -> list[Array]:
    """The same in PyTorch."""
    data, values = start(dtype)
    x, parameters = torch.tensor(data), [torch.tensor(value, requires_grad=True) for value in values]
    optimizer = make(parameters)
    found: list[Array] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch, x, *parameters).backward()
        optimizer.step()
        found.append(together([p.detach().numpy() for p in parameters]))
    return found


def by_hand(update: Callable[[Array, Array, dict[str, Any], int], Array], steps: int = STEPS) -> list[Array]:
    """The same in NumPy: ``update(w, g, state, t)`` gives the next w."""
    x, values = start()
    states: list[dict[str, Any]] = [{} for _ in values]
    found: list[Array] = []
    for t in range(1, steps + 1):
        grads = gradients(x, *values)
        values = [np.asarray(update(w, g, s, t)) for w, g, s in zip(values, grads, states, strict=True)]
        found.append(together(values))
    return found


def together(values: Sequence[Array]) -> Array:
    """All elements in one vector."""
    return np.concatenate([np.ravel(np.array(value)) for value in values])
