"""telegrad: write models in Python, train them on a GPU server; a step is data.

Array functions, dtypes and promotion follow the Python array API standard; `nn` and `optim` follow PyTorch's names.

::

    import telegrad as tg

    with tg.connect() as session:
        x = tg.asarray([1.0, 2.0, 3.0])
        print(tg.grad(lambda x: (x * x).sum())(x))
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from telegrad import errors
from telegrad.context import enable_grad, is_grad_enabled, no_grad
from telegrad.control_flow import cond, fori_loop, scan, switch, while_loop
from telegrad.creation import (
    arange,
    asarray,
    empty,
    eye,
    from_dlpack,
    full,
    linspace,
    meshgrid,
    ones,
    tensor,
    zeros,
)
from telegrad.errors import TelegradError
from telegrad.function import function
from telegrad.info import (
    __array_api_version__,
    __array_namespace_info__,
    broadcast_shapes,
    can_cast,
    e,
    finfo,
    iinfo,
    inf,
    isdtype,
    nan,
    newaxis,
    pi,
    result_type,
)
from telegrad.ir.types import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from telegrad.ir.types import bool_ as bool
from telegrad.opening import connect
from telegrad.ops import *  # noqa: F403
from telegrad.ops import __all__ as _functions
from telegrad.parts import on, pipeline
from telegrad.replicas import all_reduce, replica_index
from telegrad.scope import Scope, scoped
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.transforms import checkpoint, custom_vjp, grad, jvp, value_and_grad, vjp
from telegrad.variable import Parameter, Variable
from telegrad.vectorize import hessian, jacobian, vmap

if _TYPE_CHECKING:
    from telegrad import data, linalg, models, nn, optim, random, safetensors, sparse, training
    from telegrad.timeline import profile
    from telegrad.training import Trainer

__version__ = "0.1.0"

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "DType", "Parameter", "Scope", "Session", "TelegradError", "Tensor", "Trainer", "Variable",
    "__array_api_version__", "__array_namespace_info__", "__version__", "all_reduce", "arange", "asarray", "bfloat16",
    "bool", "broadcast_shapes", "can_cast", "checkpoint", "cond", "connect", "custom_vjp", "data", "e", "empty",
    "enable_grad", "errors", "eye", "finfo", "float16", "float32", "float64", "fori_loop", "from_dlpack", "full",
    "function", "grad", "hessian", "iinfo", "inf", "int16", "int32", "int64", "int8", "is_grad_enabled", "isdtype",
    "jacobian", "jvp", "linalg", "linspace", "meshgrid", "models", "nan", "newaxis", "nn", "no_grad", "on", "ones",
    "optim", "pi", "pipeline", "profile", "random", "replica_index", "result_type", "safetensors", "scan", "scoped",
    "sparse", "switch", "tensor", "training", "uint16", "uint32", "uint64", "uint8", "value_and_grad", "vjp", "vmap",
    "while_loop", "zeros",
    *_functions,
]  # fmt: skip


def __getattr__(name: str) -> _Any:
    """Loaded when they are first used: they would take a third of the import."""
    if name in ("data", "linalg", "models", "nn", "optim", "random", "safetensors", "sparse", "training"):
        return _import_module(f"telegrad.{name}")
    if name == "profile":
        return _import_module("telegrad.timeline").profile
    if name == "Trainer":
        return _import_module("telegrad.training").Trainer
    raise AttributeError(f"module 'telegrad' has no attribute {name!r}")
