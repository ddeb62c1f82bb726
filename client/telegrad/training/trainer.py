"""The trainer: what most trainings have in common, made of the functions that a user would write by hand.

::

    import telegrad as tg
    from telegrad import nn, optim, training

    with tg.connect() as session:
        model = nn.Linear(64, 10)
        trainer = tg.Trainer(
            model, nn.functional.cross_entropy, optim.AdamW(model.parameters(), lr=1e-3), metrics=["accuracy"],
            callbacks=[training.EarlyStopping("loss", "min", patience=3), training.EMA(0.99)],
        )
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from telegrad.datasets import Dataset
from telegrad.errors import GraphError
from telegrad.function import Function, function
from telegrad.jobs.counts import count
from telegrad.jobs.job import Job
from telegrad.jobs.submitting import submit
from telegrad.jobs.tracing import Afterwards, returned_metrics
from telegrad.nest import flatten
from telegrad.nn.module import Module
from telegrad.optim.grad_scaler import GradScaler
from telegrad.optim.lr_scheduler import ReduceLROnPlateau
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.swa_utils import AveragedModel, get_ema_avg_fn
from telegrad.tensor import Tensor
from telegrad.training import steps
from telegrad.training.callbacks import (
    EMA,
    SWA,
    Callback,
    EarlyStopping,
    KeepBest,
    ReduceOnPlateau,
    check_callbacks,
    the_one,
)
from telegrad.training.evaluating import batches
from telegrad.training.metrics import Metric, by_name
from telegrad.variable import Variable
from telegrad.wire.reduction import Reduction

Data = Dataset | Mapping[str, npt.ArrayLike | Tensor]


class LoopOptions(TypedDict, total=False):
    """What `Trainer.fit` hands on: the options of `Session.submit` that a trainer does not decide itself."""

    name: str | None
    shuffle: bool
    seed: int | None
    drop_last: bool
    validate_every_steps: int
    validate_every_epochs: int
    checkpoint_every: int
    checkpoint_seconds: float
    keep_checkpoints: int
    record_every: int
    on_nonfinite: Literal["keep", "pause", "fail"]
    strict: bool
    backend: Literal["", "numpy", "cupy"]
    worker: str


_DEFAULTS: LoopOptions = {
    "name": None,
    "shuffle": True,
    "seed": None,
    "drop_last": False,
    "validate_every_steps": 0,
    "validate_every_epochs": 1,
    "checkpoint_every": 0,
    "checkpoint_seconds": 0.0,
    "keep_checkpoints": 2,
    "record_every": 1,
    "on_nonfinite": "fail",
    "strict": False,
    "backend": "",
    "worker": "",
}


class Trainer:
    """A model with its loss, optimizer, metrics and callbacks: `fit` makes a job of them, `step` is one step by hand.

    ``loss`` takes the model's output and the target and gives one number, the mean over the rows. ``inputs`` and
    ``target`` name the columns of the data that the model and the loss take. ``metrics`` are names, functions of
    (output, target), or a dict of such functions. A step computes the gradients of the batch in ``accumulate`` parts,
    clips their norm to ``clip_norm``, and updates once. ``scheduler`` decides the learning rate from then on.

    GraphError for what does not fit together.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Tensor],
        optimizer: Optimizer,
        *,
        metrics: Mapping[str, Metric] | Sequence[str | Metric] = (),
        callbacks: Sequence[Callback] = (),
        accumulate: int = 1,
        clip_norm: float | None = None,
        scheduler: Callable[[Tensor], Tensor] | None = None,
        scaler: GradScaler | None = None,
        inputs: str | Sequence[str] = "x",
        target: str | Sequence[str] = "y",
        replicas: int | None = None,
    ) -> None:
        if type(accumulate) is not int or accumulate < 1:
            raise GraphError(f"accumulate is a number of parts of a batch, at least 1, not {accumulate!r}")
        if clip_norm is not None and not clip_norm > 0:
            raise GraphError(f"clip_norm must be more than 0, not {clip_norm}")
        check_callbacks(callbacks)
        self.model, self.optimizer, self.callbacks = model, optimizer, tuple(callbacks)
        self._objective = steps.Objective(loss, _names(inputs), _names(target), by_name(metrics))
        self.plateau = self._plateau(the_one(callbacks, ReduceOnPlateau), scheduler)
        """The schedule of a ReduceOnPlateau, if there is one."""
        rate = scheduler if self.plateau is None else self.plateau
        if rate is not None:
            optimizer.schedule(rate)
        ema, swa = the_one(callbacks, EMA), the_one(callbacks, SWA)
        self.ema = AveragedModel(model, get_ema_avg_fn(ema.decay), ema.use_buffers) if ema is not None else None
        """The model with averaged weights of an EMA, if there is one."""
        self.swa = AveragedModel(model, None, swa.use_buffers) if swa is not None else None
        """The model with averaged weights of an SWA, if there is one."""
        python = steps.training_step(
            model,
            optimizer,
            self._objective,
            accumulate=accumulate,
            clip_norm=clip_norm,
            scaler=scaler,
            ema=self.ema,
        )
        self._step: Function[..., Any] = function(python, replicas=replicas)
        self._after_epoch = list(self._afterwards(swa))
        self._evaluations: dict[int, Function[..., Any]] = {}

    def _plateau(
        self, wanted: ReduceOnPlateau | None, scheduler: Callable[[Tensor], Tensor] | None
    ) -> ReduceLROnPlateau | None:
        if wanted is None:
            return None
        rates: list[Any] = [group["lr"] for group in self.optimizer.param_groups]
        if scheduler is not None or callable(rates[0]) or rates.count(rates[0]) < len(rates):
            raise GraphError(
                "ReduceOnPlateau decides the learning rate alone: give the optimizer one number as lr, and no scheduler"
            )
        return ReduceLROnPlateau(
            float(rates[0]), wanted.mode, wanted.factor, wanted.patience, wanted.threshold, wanted.threshold_mode,
            wanted.cooldown, wanted.min_lr, wanted.eps,
        )  # fmt: skip

    def _afterwards(self, swa: SWA | None) -> Iterator[Afterwards]:
        if swa is not None and self.swa is not None:
            epochs = Variable(np.int64(0), name="swa_epochs")
            yield Afterwards(steps.averaging(self.model, self.swa, epochs, swa.start_epoch, swa.every_epochs))
        if self.plateau is not None:
            wanted = the_one(self.callbacks, ReduceOnPlateau)
            assert wanted is not None
            yield Afterwards(steps.plateau_step(self.plateau, self.optimizer), {"metric": wanted.metric})

    # ---- training

    @property
    def step(self) -> Callable[..., steps.Results]:
        """One training step, by hand: ``trainer.step(x, y)`` returns the loss and the metrics, still on the server.

        What comes after an epoch is not part of it: the average of an SWA, a plateau.
        """
        return self._step

    def fit(
        self,
        data: Data,
        *,
        batch_size: int,
        epochs: int | None = None,
        steps: int | None = None,
        validation_data: Data | None = None,
        **loop: Unpack[LoopOptions],
    ) -> Job:
        """A job that trains a copy of the model as it is now; returns at once. `load` brings back what it has made.

        ``data`` and ``validation_data`` are datasets or dicts of arrays. An update takes ``batch_size`` rows. The rest
        is as in `Session.submit`.
        """
        trained = next(self.model.parameters(), None)
        if trained is None:
            raise GraphError(f"{type(self.model).__name__} has no parameters: there is nothing to train")
        options: LoopOptions = {**_DEFAULTS, **loop}
        after_epoch, after_validation = self._after_epoch, []
        if after_epoch and any(metric.startswith("val/") for metric in after_epoch[-1].metrics.values()):
            after_epoch, after_validation = after_epoch[:-1], after_epoch[-1:]
        return submit(
            trained.session,
            self._step,
            data=data,
            batch_size=batch_size,
            epochs=epochs,
            steps=steps,
            validate=None if validation_data is None else self._evaluation(self.model),
            validation_data=validation_data,
            early_stopping=the_one(self.callbacks, EarlyStopping),
            keep_best=the_one(self.callbacks, KeepBest),
            after_epoch=after_epoch,
            after_validation=after_validation,
            **options,
        )

    def load(self, job: Job, *, step: int | None = None) -> int:
        """Assign what a job of this trainer's has made, to the model, the optimizer and averages; returns its step."""
        found = job.load_state(self.model, self.optimizer, step=step, root="model")
        for root, average in (("ema", self.ema), ("swa", self.swa)):
            if average is not None:
                job.load_state(average, step=found, root=root)
        return found

    # ---- evaluating

    def evaluate(self, data: Data, *, batch_size: int = 256, model: Module | None = None) -> dict[str, float]:
        """The loss and the metrics over all rows, computed now, in evaluation mode; weighted as a job does it.

        ``model`` is another one than the trainer's, such as ``trainer.ema``. Rows of a dataset come to this program
        and go back in batches: for one that is large use ``validation_data``. GraphError if there are none.
        """
        chosen = self.model if model is None else model
        evaluate = self._evaluation(chosen)
        found: list[tuple[steps.Results, int]] = []
        coming = batches(data, self._objective.columns, count(batch_size, "batch_size", least=1))
        with steps.evaluating(chosen):
            for batch, rows in coming:
                found.append((evaluate(**batch), rows))
        reduction = Reduction()
        metrics = returned_metrics("evaluate", flatten(found[0][0])[1])
        for results, rows in found:
            values = [tensor.item() for tensor in flatten(results)[0]]
            names = [metric.name for metric in metrics]
            reduction.add(dict(zip(names, values, strict=True)), metrics, rows)
        return reduction.result(metrics)

    def _evaluation(self, model: Module) -> Function[..., Any]:
        if id(model) not in self._evaluations:
            self._evaluations[id(model)] = function(steps.evaluation(model, self._objective))
        return self._evaluations[id(model)]


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    wrong = [name for name in names if not name.isidentifier()]
    if wrong:
        raise GraphError(f"the column {wrong[0]!r} cannot be an argument of a function; call it x_1 or image")
    return names


__all__ = ["LoopOptions", "Trainer"]
