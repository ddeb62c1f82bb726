"""Optimizers with PyTorch's names, arguments and trajectories. State is variables; updates are ops."""

from telegrad.optim.adam import Adam, AdamW
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
