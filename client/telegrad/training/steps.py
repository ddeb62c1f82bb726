"""What a trainer traces: the training step, the evaluation, and what comes after epochs and validations.

They are closures over variables with these names, since a job calls its tensors so: ``model.0.weight``, ``ema.module``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from telegrad import context, ops
from telegrad.errors import GraphError
from telegrad.ir import types
from telegrad.nn.module import Module
from telegrad.nn.utils import clip_grad_norm_
from telegrad.ops.control import Barrier
from telegrad.optim.grad_scaler import GradScaler
from telegrad.optim.lr_scheduler import ReduceLROnPlateau
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.swa_utils import AveragedModel
from telegrad.replicas import all_reduce
from telegrad.tensor import Tensor
from telegrad.training.metrics import Metric
from telegrad.variable import Variable

Results = dict[str, Any]
"""A number, or a pair (sum, count), by name."""


@dataclass(frozen=True)
class Objective:
    """What is computed of a batch: the columns that the model takes, those that the loss takes too, and the metrics."""

    loss: Callable[..., Tensor]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    metrics: dict[str, Metric]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, each once."""
        return tuple(dict.fromkeys((*self.inputs, *self.targets)))

    def of(self, model: Module, batch: dict[str, Tensor]) -> tuple[Tensor, Results]:
        """The loss and the metrics of a batch."""
        output = model(*[batch[name] for name in self.inputs])
        targets = [batch[name] for name in self.targets]
        loss = self.loss(output, *targets)
        with context.no_grad():
            return loss, {name: metric(output, *targets) for name, metric in self.metrics.items()}


def training_step(
    model: Module,
    optimizer: Optimizer,
    objective: Objective,
    *,
    accumulate: int,
    clip_norm: float | None,
    scaler: GradScaler | None,
    ema: AveragedModel | None,
) -> Callable[..., Results]:
    """The step: gradients of ``accumulate`` parts of the batch, added up, then one update."""

    def step(*arguments: Tensor, **named: Tensor) -> Results:
        batch = _bound(objective.columns, arguments, named)
        found: list[tuple[float, Results]] = []
        for share, part in _parts(batch, accumulate):
            part = _after(part, [p.grad for p in model.parameters() if p.grad is not None]) if found else part
            loss, metrics = objective.of(model, part)
            objective_value = loss if share == 1 else loss * share
            (objective_value if scaler is None else scaler.scale(objective_value)).backward()
            found.append((share, {"loss": loss, **metrics}))
        if clip_norm is not None:
            limit = clip_norm if scaler is None else scaler.scale(clip_norm)
            clip_grad_norm_(model.parameters(), limit)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
        if ema is not None:
            ema.update_parameters(model)
        return _together(found)

    return _taking(step, objective.columns)


def evaluation(model: Module, objective: Objective) -> Callable[..., Results]:
    """The loss and the metrics of a batch, in evaluation mode, without an update."""

    def evaluate(*arguments: Tensor, **named: Tensor) -> Results:
        with evaluating(model), context.no_grad():
            loss, metrics = objective.of(model, _bound(objective.columns, arguments, named))
        return _together([(1, {"loss": loss, **metrics})])

    return _taking(evaluate, objective.columns)


def plateau_step(plateau: ReduceLROnPlateau, optimizer: Optimizer) -> Callable[[Tensor], Results]:
    """What a plateau schedule makes of a metric; the rate is recorded."""

    def reduce_on_plateau(metric: Tensor) -> Results:
        assert optimizer is not None  # its name leads to the schedule's variables
        plateau.step(metric)
        return {"lr": plateau.rate}

    return reduce_on_plateau


def averaging(model: Module, swa: AveragedModel, swa_epochs: Variable, start: int, every: int) -> Callable[[], None]:
    """What takes the weights into an average at the ends of some epochs, which it counts."""

    def average() -> None:
        late = swa_epochs - start
        is_time = ops.logical_and(late >= 0, ops.remainder(late, every) == 0)
        swa.update_parameters(model, only_if=is_time)
        swa_epochs.assign(swa_epochs + 1)

    return average


@contextmanager
def evaluating(model: Module) -> Generator[None]:
    """The model in evaluation mode, and afterwards every module of it in its own again."""
    modes = [(module, module.__dict__["_training"]) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            object.__setattr__(module, "_training", mode)


def _bound(columns: tuple[str, ...], arguments: Sequence[Tensor], named: dict[str, Tensor]) -> dict[str, Tensor]:
    batch = {**dict(zip(columns, arguments, strict=False)), **named}
    if len(arguments) > len(columns) or batch.keys() != {*columns}:
        raise GraphError(f"a step takes a batch of each of {', '.join(columns)}, not of {', '.join(batch) or 'none'}")
    return batch


def _parts(batch: dict[str, Tensor], parts: int) -> list[tuple[float, dict[str, Tensor]]]:
    """The batch in parts of rows that follow each other, as equal as they can be, with the share that each has."""
    rows = next(iter(batch.values())).shape[0]
    parts = min(parts, rows)
    if parts == 1:
        return [(1, batch)]
    ends = [rows * (i + 1) // parts for i in range(parts)]
    spans = zip([0, *ends[:-1]], ends, strict=True)
    return [((end - first) / rows, {name: x[first:end] for name, x in batch.items()}) for first, end in spans]


def _after(part: dict[str, Tensor], grads: list[Tensor]) -> dict[str, Tensor]:
    """The part, but not before the gradients of the parts before it are there: one part's values at a time are kept."""
    if not grads:
        return part
    return dict(zip(part, Barrier(len(part)).results(*part.values(), *grads), strict=True))


def _together(found: list[tuple[float, Results]]) -> Results:
    """The results of parts as those of the whole: means by their shares, pairs of sums added up."""
    results: Results = {}
    for name, first in found[0][1].items():
        values = [part[name] for _, part in found]
        if isinstance(first, tuple):
            pairs = [[ops.astype(x, types.float32) for x in pair] for pair in values]
            results[name] = tuple([all_reduce(_added(list(side)), "sum") for side in zip(*pairs, strict=True)])
        elif len(found) == 1:
            results[name] = first
        else:
            results[name] = _added([value * share for value, (share, _) in zip(values, found, strict=True)])
    return results


def _added(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _taking(function: Any, columns: tuple[str, ...]) -> Callable[..., Results]:
    """The function with the columns as its arguments, which is how a job knows what to give it."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in columns])
    return function


__all__ = ["Objective", "averaging", "evaluating", "evaluation", "plateau_step", "training_step"]
