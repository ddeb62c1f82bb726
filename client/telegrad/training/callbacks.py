"""What goes with a training, as data: no code of a callback runs anywhere but in the graph, so a job keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from telegrad.errors import GraphError
from telegrad.optim.update import require
from telegrad.wire.job_spec import EarlyStopping, KeepBest, Mode

C = TypeVar("C")


@dataclass(frozen=True)
class EMA:
    """Keep an exponential average of the weights, taken after every step: decay * average + (1 - decay) * weight.

    With ``use_buffers`` the running statistics are averaged too; else the average has the model's.
    """

    decay: float = 0.999
    use_buffers: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.decay <= 1, f"EMA: decay must be in [0, 1], not {self.decay}")


@dataclass(frozen=True)
class SWA:
    """Keep the equal average of the weights at the ends of epochs: of ``start_epoch``, from 0, and of every
    ``every_epochs`` after it.

    Izmailov et al. 2018, Averaging weights leads to wider optima, algorithm 1.
    """

    start_epoch: int
    every_epochs: int = 1
    use_buffers: bool = False

    def __post_init__(self) -> None:
        require(self.start_epoch >= 0, f"SWA: start_epoch must be at least 0, not {self.start_epoch}")
        require(self.every_epochs >= 1, f"SWA: every_epochs must be at least 1, not {self.every_epochs}")


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiply the learning rate by ``factor`` when a metric has not become better for more than ``patience`` times.

    "val/loss" is looked at after each validation, "loss" after each epoch; the rate is recorded as "lr". The other
    numbers are those of `telegrad.optim.lr_scheduler.ReduceLROnPlateau`, which are PyTorch's.
    """

    metric: str
    mode: Mode = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    eps: float = 1e-8


Callback = EarlyStopping | KeepBest | ReduceOnPlateau | EMA | SWA


def check_callbacks(callbacks: Sequence[object]) -> None:
    """GraphError for what is no callback."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise GraphError(
                f"a callback is data, one of {', '.join([kind.__name__ for kind in get_args(Callback)])}; not"
                f" {type(callback).__name__}"
            )


def the_one(callbacks: Sequence[Callback], kind: type[C]) -> C | None:
    """The callback of a kind, of which there may be one."""
    found = [callback for callback in callbacks if isinstance(callback, kind)]
    if len(found) > 1:
        raise GraphError(f"a trainer takes one {kind.__name__}, not {len(found)}")
    return found[0] if found else None


__all__ = ["EMA", "SWA", "Callback", "EarlyStopping", "KeepBest", "ReduceOnPlateau", "check_callbacks", "the_one"]
