"""Schedules: functions of the step, with PyTorch's names, that are part of the graph.

A schedule takes the place of a number: ``optim.SGD(params, lr=CosineAnnealingLR(0.1, T_max=100))``. The optimizer
counts its steps in a variable and asks the schedule for that step's number, so a traced training step needs nothing
from Python between two calls. What PyTorch takes from the optimizer, the base rate, is the first argument: a number,
or another schedule, whose result is then scaled. ``LinearLR(CosineAnnealingLR(0.1, 100), total_iters=5)`` warms up.

The step counts from 0, as PyTorch's ``last_epoch`` does if ``scheduler.step()`` follows every ``optimizer.step()``.
A schedule also takes an array of steps, ``schedule(tg.arange(100))``, which is a way to draw it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad import context, ops
from telegrad.creation import asarray
from telegrad.function import guard, live_number
from telegrad.ir import types
from telegrad.optim.update import Number, Rate, require
from telegrad.tensor import Tensor
from telegrad.variable import Variable

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "WarmupLR",
]


class Schedule:
    """The family. A subclass says in ``scaled`` what it makes of a base rate at a step."""

    lr: Rate

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        """The number at ``step``, float64[...], from the base rate there."""
        raise NotImplementedError

    def __call__(self, step: Tensor | npt.ArrayLike) -> Tensor:
        """step[...] -> float64[...], the numbers at these steps."""
        count = ops.astype(step if isinstance(step, Tensor) else asarray(step), types.float64)
        return self.scaled(self.lr(count) if callable(self.lr) else self.lr, count)

    def named_variables(self) -> Iterator[tuple[str, Variable]]:
        """What it and the schedules inside it hold on the server, by dotted name."""
        for name, value in vars(self).items():
            for place, part in enumerate(value) if isinstance(value, tuple) else [(None, value)]:
                path = name if place is None else f"{name}.{place}"
                if isinstance(part, Variable):
                    yield path, part
                elif isinstance(part, Schedule):
                    yield from ((f"{path}.{inner}", v) for inner, v in part.named_variables())

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """What it holds, as NumPy arrays; nothing for a function of the step alone."""
        return {name: variable.numpy() for name, variable in self.named_variables()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what another held. GraphError if the names do not fit."""
        known = dict(self.named_variables())
        fits = known.keys() == state_dict.keys()
        require(fits, f"load_state_dict: the schedule needs {sorted(known)}, given are {sorted(state_dict)}")
        for name, variable in known.items():
            variable.assign(np.asarray(state_dict[name]))


@dataclass(frozen=True)
class LambdaLR(Schedule):
    """lr * lr_lambda(step); the function takes and returns a tensor."""

    lr: Rate
    lr_lambda: Callable[[Tensor], Tensor]

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return self.lr_lambda(step) * lr


@dataclass(frozen=True)
class ConstantLR(Schedule):
    """lr * factor before step ``total_iters``, then lr."""

    lr: Rate
    factor: float = 1 / 3
    total_iters: int = 5

    def __post_init__(self) -> None:
        require(0 <= self.factor <= 1, f"ConstantLR: factor must be in [0, 1], not {self.factor}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return ops.where(step < self.total_iters, ops.full_like(step, self.factor), 1.0) * lr


@dataclass(frozen=True)
class LinearLR(Schedule):
    """lr times what goes in a line from ``start_factor`` to ``end_factor`` at step ``total_iters``, and stays there."""

    lr: Rate
    start_factor: float = 1 / 3
    end_factor: float = 1.0
    total_iters: int = 5

    def __post_init__(self) -> None:
        require(0 < self.start_factor <= 1, f"LinearLR: start_factor must be in (0, 1], not {self.start_factor}")
        require(0 <= self.end_factor <= 1, f"LinearLR: end_factor must be in [0, 1], not {self.end_factor}")
        require(self.total_iters > 0, f"LinearLR: total_iters must be at least 1, not {self.total_iters}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        share = ops.minimum(step, float(self.total_iters)) / self.total_iters
        return (self.start_factor + (self.end_factor - self.start_factor) * share) * lr


@dataclass(frozen=True)
class ExponentialLR(Schedule):
    """lr * gamma**step."""

    lr: Rate
    gamma: float

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return self.gamma**step * lr


@dataclass(frozen=True)
class StepLR(Schedule):
    """lr times gamma after every ``step_size`` steps."""

    lr: Rate
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        require(self.step_size > 0, f"StepLR: step_size must be at least 1, not {self.step_size}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return self.gamma ** ops.floor(step / self.step_size) * lr


@dataclass(frozen=True)
class MultiStepLR(Schedule):
    """lr times gamma at each of the milestones."""

    lr: Rate
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        passed = ops.zeros_like(step)
        for milestone in self.milestones:
            passed = passed + ops.astype(step >= milestone, types.float64)
        return self.gamma**passed * lr


@dataclass(frozen=True)
class PolynomialLR(Schedule):
    """lr * (1 - step / total_iters)**power, and 0 from ``total_iters`` on."""

    lr: Rate
    total_iters: int = 5
    power: float = 1.0

    def __post_init__(self) -> None:
        require(self.total_iters > 0, f"PolynomialLR: total_iters must be at least 1, not {self.total_iters}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        left = 1 - ops.minimum(step, float(self.total_iters)) / self.total_iters
        return left**self.power * lr


def _cosine(start: Number, end: Number, share: Tensor) -> Tensor:
    """From ``start`` at share 0 along half a cosine to ``end`` at share 1."""
    return (1 + ops.cos(share * math.pi)) / 2 * (start - end) + end


def _line(start: Number, end: Number, share: Tensor) -> Tensor:
    return share * (end - start) + start


@dataclass(frozen=True)
class CosineAnnealingLR(Schedule):
    """From lr along half a cosine to ``eta_min`` at step ``T_max``, and back.

    Loshchilov and Hutter 2017, SGDR: stochastic gradient descent with warm restarts, equation 5.
    """

    lr: Rate
    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        require(self.T_max > 0, f"CosineAnnealingLR: T_max must be at least 1, not {self.T_max}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return _cosine(lr, self.eta_min, step / self.T_max)


@dataclass(frozen=True)
class CosineAnnealingWarmRestarts(Schedule):
    """From lr along half a cosine to ``eta_min``, then anew; the first run has T_0 steps, each next T_mult times more.

    Loshchilov and Hutter 2017, SGDR: stochastic gradient descent with warm restarts, section 3.
    """

    lr: Rate
    T_0: int
    T_mult: int = 1
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        require(self.T_0 > 0, f"CosineAnnealingWarmRestarts: T_0 must be at least 1, not {self.T_0}")
        require(self.T_mult > 0, f"CosineAnnealingWarmRestarts: T_mult must be at least 1, not {self.T_mult}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        if self.T_mult == 1:
            return _cosine(lr, self.eta_min, ops.remainder(step, float(self.T_0)) / self.T_0)
        # run n begins at T_0 (T_mult**n - 1) / (T_mult - 1); the logarithm is rounded, so n may be one too large
        ratio = step * ((self.T_mult - 1) / self.T_0) + 1
        run = ops.round(ops.log(ratio) / math.log(self.T_mult))
        run = run - ops.astype(self._start(run) > step, types.float64)
        return _cosine(lr, self.eta_min, (step - self._start(run)) / (self.T_mult**run * self.T_0))

    def _start(self, run: Tensor) -> Tensor:
        return (ops.round(self.T_mult**run) - 1) * self.T_0 / (self.T_mult - 1)


@dataclass(frozen=True)
class OneCycleLR(Schedule):
    """From max_lr / div_factor up to ``max_lr`` and down to the start / final_div_factor, in ``total_steps`` steps.

    Smith and Topin 2019, Super-convergence. The momentum is not cycled along: give the optimizer a schedule for it.
    After the last step the rate stays, where PyTorch raises.
    """

    max_lr: float
    total_steps: int | None = None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    pct_start: float = 0.3
    anneal_strategy: str = "cos"
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        if self.total_steps is None:
            given = self.epochs is not None and self.steps_per_epoch is not None
            require(given, "OneCycleLR needs total_steps, or epochs and steps_per_epoch")
            object.__setattr__(self, "total_steps", (self.epochs or 0) * (self.steps_per_epoch or 0))
        assert self.total_steps is not None
        require(self.total_steps > 0, f"OneCycleLR: total_steps must be at least 1, not {self.total_steps}")
        require(0 <= self.pct_start <= 1, f"OneCycleLR: pct_start must be in [0, 1], not {self.pct_start}")
        known = self.anneal_strategy in ("cos", "linear")
        require(known, f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', not {self.anneal_strategy!r}")
        object.__setattr__(self, "lr", self.max_lr)

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        assert self.total_steps is not None
        first, top = lr / self.div_factor, self.pct_start * self.total_steps - 1
        last, end = first / self.final_div_factor, self.total_steps - 1.0
        if self.three_phase:
            second = 2 * self.pct_start * self.total_steps - 2
            phases = [(0.0, top, first, lr), (top, second, lr, first), (second, end, first, last)]
        else:
            phases = [(0.0, top, first, lr), (top, end, lr, last)]
        anneal = _cosine if self.anneal_strategy == "cos" else _line
        rate = anneal(*phases[-1][2:], _share(step, *phases[-1][:2]))
        for start, stop, low, high in reversed(phases[:-1]):
            rate = ops.where(step <= stop, anneal(low, high, _share(step, start, stop)), rate)
        return rate


def _share(step: Tensor, start: float, stop: float) -> Tensor:
    """How far the step is from start to stop, at most 1."""
    return ops.minimum((step - start) / (stop - start), 1.0) if stop != start else ops.ones_like(step)


@dataclass(frozen=True)
class CyclicLR(Schedule):
    """From ``lr`` up to ``max_lr`` and back in lines, again and again. Smith 2017, Cyclical learning rates, section 3.

    ``mode`` "triangular2" halves the height with every cycle, "exp_range" multiplies it by gamma**step. The momentum
    is not cycled along: give the optimizer a schedule for it.
    """

    lr: Rate
    max_lr: float
    step_size_up: int = 2000
    step_size_down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        known = self.mode in ("triangular", "triangular2", "exp_range")
        require(known, f"CyclicLR: mode must be 'triangular', 'triangular2' or 'exp_range', not {self.mode!r}")
        sizes = (self.step_size_up, self.step_size_up if self.step_size_down is None else self.step_size_down)
        require(min(sizes) > 0, f"CyclicLR: step sizes must be at least 1, not {sizes}")

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        cycle = ops.floor(step / (up + down))
        place = step - cycle * (up + down)
        height = ops.where(place <= up, place / up, (up + down - place) / down)
        if self.mode == "triangular2":
            height = height * 0.5**cycle
        elif self.mode == "exp_range":
            height = height * self.gamma**step
        return height * (self.max_lr - lr) + lr


@dataclass(frozen=True)
class WarmupLR(Schedule):
    """In a line from lr * start_factor to lr in ``total_iters`` steps; then ``lr``, whose own steps begin there."""

    lr: Rate
    total_iters: int
    start_factor: float = 0.0

    def __post_init__(self) -> None:
        require(self.total_iters > 0, f"WarmupLR: total_iters must be at least 1, not {self.total_iters}")

    def __call__(self, step: Tensor | npt.ArrayLike) -> Tensor:
        """step[...] -> float64[...], the numbers at these steps."""
        count = ops.astype(step if isinstance(step, Tensor) else asarray(step), types.float64)
        later = ops.maximum(count - self.total_iters, 0.0)
        return self.scaled(self.lr(later) if callable(self.lr) else self.lr, count)

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        share = ops.minimum(step, float(self.total_iters)) / self.total_iters
        return (self.start_factor + (1 - self.start_factor) * share) * lr


@dataclass(frozen=True)
class SequentialLR(Schedule):
    """One schedule after another: the next begins, at its own step 0, at each milestone."""

    schedulers: Sequence[Schedule]
    milestones: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", tuple(self.schedulers))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        fits = len(self.schedulers) == len(self.milestones) + 1
        require(fits, "SequentialLR needs one milestone between every two schedulers")
        require(list(self.milestones) == sorted(self.milestones), "SequentialLR: the milestones must grow")

    def __call__(self, step: Tensor | npt.ArrayLike) -> Tensor:
        """step[...] -> float64[...], the numbers at these steps."""
        count = ops.astype(step if isinstance(step, Tensor) else asarray(step), types.float64)
        rate = self.schedulers[0](count)
        for milestone, schedule in zip(self.milestones, self.schedulers[1:], strict=True):
            later = schedule(ops.maximum(count - milestone, 0.0))
            rate = ops.where(count >= milestone, later, rate)
        return rate


@dataclass(frozen=True)
class ChainedScheduler(Schedule):
    """All schedules at once: the second scales what the first gives, and so on; only the first one's ``lr`` counts."""

    schedulers: Sequence[Schedule]

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedulers", tuple(self.schedulers))
        require(len(self.schedulers) > 0, "ChainedScheduler needs at least one scheduler")

    def __call__(self, step: Tensor | npt.ArrayLike) -> Tensor:
        """step[...] -> float64[...], the numbers at these steps."""
        count = ops.astype(step if isinstance(step, Tensor) else asarray(step), types.float64)
        rate = self.schedulers[0](count)
        for schedule in self.schedulers[1:]:
            rate = schedule.scaled(rate, count)
        return rate


class ReduceLROnPlateau(Schedule):
    """lr, multiplied by ``factor`` when a metric has not become better for more than ``patience`` steps of its own.

    Rate, best metric and counters are variables: call ``step(metric)`` with a tensor or a number, also inside
    ``tg.function``. The arguments are PyTorch's, with the rate in place of the optimizer.
    """

    def __init__(
        self,
        lr: float,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        require(factor < 1, f"ReduceLROnPlateau: factor must be less than 1, not {factor}")
        require(mode in ("min", "max"), f"ReduceLROnPlateau: mode must be 'min' or 'max', not {mode!r}")
        known = threshold_mode in ("rel", "abs")
        require(known, f"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs', not {threshold_mode!r}")
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.rate = Variable(np.float64(lr), name="plateau.rate")
        self.best = Variable(np.float64(math.inf if mode == "min" else -math.inf), name="plateau.best")
        self.num_bad_epochs = Variable(np.float64(0), name="plateau.num_bad_epochs")
        self.cooldown_counter = Variable(np.float64(0), name="plateau.cooldown_counter")

    def __call__(self, step: Tensor | npt.ArrayLike) -> Tensor:
        """The rate as it is now, float64[], whatever the step."""
        return self.rate

    def scaled(self, lr: Number, step: Tensor) -> Tensor:
        return self.rate

    def step(self, metrics: Tensor | float) -> None:
        """Take note of a metric, one number, and lower the rate if it is time."""
        with context.no_grad():
            metric = ops.reshape(metrics if isinstance(metrics, Tensor) else asarray(metrics), ())
            self._step(ops.astype(metric, types.float64))
        if context.TRACE.get() is None:
            self.rate.session.flush()

    def _step(self, metric: Tensor) -> None:
        is_better = self._is_better(metric, best=self.best)
        self.best.assign(ops.where(is_better, metric, self.best))
        bad = ops.where(is_better, 0.0, self.num_bad_epochs + 1)
        cooling = ops.maximum(self.cooldown_counter - 1, 0.0)
        bad = ops.where(self.cooldown_counter > 0, 0.0, bad)
        is_time = bad > live_number(lambda: float(self.patience))
        self.num_bad_epochs.assign(ops.where(is_time, 0.0, bad))
        self.cooldown_counter.assign(ops.where(is_time, live_number(lambda: float(self.cooldown)), cooling))
        self.rate.assign(ops.where(is_time, self._lower(self.rate), self.rate))

    def _lower(self, rate: Tensor) -> Tensor:
        lower = ops.maximum(rate * live_number(lambda: self.factor), live_number(lambda: self.min_lr))
        return ops.where(rate - lower > live_number(lambda: self.eps), lower, rate)

    def _is_better(self, metric: Tensor, *, best: Tensor) -> Tensor:
        threshold = live_number(lambda: self.threshold)
        is_relative = guard(lambda: self.threshold_mode == "rel")
        if guard(lambda: self.mode == "min"):
            return metric < (best * (1 - threshold) if is_relative else best - threshold)
        return metric > (best * (1 + threshold) if is_relative else best + threshold)
