"""Modules and functions with PyTorch's names, arguments, initial values and state keys."""

from telegrad.nn import functional, init, utils
from telegrad.nn.activation import (
    ELU,
    GELU,
    SELU,
    Dropout,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from telegrad.nn.container import ModuleDict, ModuleList, Sequential
from telegrad.nn.embedding import Embedding
from telegrad.nn.linear import Flatten, Identity, Linear
from telegrad.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, NLLLoss
from telegrad.nn.module import Module
from telegrad.nn.norm import LayerNorm, RMSNorm
from telegrad.tensor import Parameter

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Hardtanh",
    "Identity",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
    "utils",
]  # fmt: skip
