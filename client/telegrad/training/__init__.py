"""Training in the usual way: a model, a loss, an optimizer, and what goes with them as data (docs/trainer.md)."""

from telegrad.training import metrics
from telegrad.training.callbacks import EMA, SWA, Callback, EarlyStopping, KeepBest, ReduceOnPlateau
from telegrad.training.trainer import Trainer

__all__ = ["EMA", "SWA", "Callback", "EarlyStopping", "KeepBest", "ReduceOnPlateau", "Trainer", "metrics"]
