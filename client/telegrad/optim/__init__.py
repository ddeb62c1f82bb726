"""Optimizers with PyTorch's names, arguments and trajectories. State is variables; updates are ops."""

from telegrad.optim import lr_scheduler, swa_utils
from telegrad.optim.adadelta import Adadelta
from telegrad.optim.adafactor import Adafactor
from telegrad.optim.adagrad import Adagrad
from telegrad.optim.adam import Adam, AdamW
from telegrad.optim.adamax import Adamax
from telegrad.optim.grad_scaler import GradScaler
from telegrad.optim.lamb import LAMB
from telegrad.optim.lion import Lion
from telegrad.optim.muon import Muon
from telegrad.optim.nadam import NAdam
from telegrad.optim.optimizer import Optimizer
from telegrad.optim.radam import RAdam
from telegrad.optim.rmsprop import RMSprop
from telegrad.optim.rprop import Rprop
from telegrad.optim.sgd import SGD, SGDW
from telegrad.optim.shampoo import Shampoo
from telegrad.optim.yogi import Yogi

schedules = lr_scheduler
"""What `lr_scheduler`, which is PyTorch's name, contains: functions of the step."""

__all__ = [
    "LAMB",
    "SGD",
    "SGDW",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "GradScaler",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Shampoo",
    "Yogi",
    "lr_scheduler",
    "schedules",
    "swa_utils",
]
