"""Every op, and the functions over them. A new op is a class in one of these modules and nothing else.

The functions are written once over `telegrad.ir.value.Operators`: they take graph values in derivative rules
and tensors from users. Each module lists in its ``__all__`` what users see as ``telegrad.*``; activations, losses,
normalisations and random numbers have their public face in `telegrad.nn.functional` and `telegrad.random`.

What is no part of ``telegrad.*`` is loaded when it is first used, so that the import of the client stays short.
Who needs to know all ops, as the decoder of graphs does, asks `registry` for them.
"""

# ruff: noqa: F403  (a star brings what the module lists)

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from telegrad.ir.op import REGISTRY, Op
from telegrad.ops import (
    control,
    einstein,
    elementwise,
    index,
    linalg,
    probability,
    reduce,
    searching,
    selection,
    shape,
    special,
)
from telegrad.ops.control import *
from telegrad.ops.einstein import *
from telegrad.ops.elementwise import *
from telegrad.ops.index import *
from telegrad.ops.linalg import *
from telegrad.ops.probability import *
from telegrad.ops.reduce import *
from telegrad.ops.searching import *
from telegrad.ops.selection import *
from telegrad.ops.shape import *
from telegrad.ops.special import *

FAMILIES = (
    "activation", "attention", "control", "convolution", "cross_entropy", "decompositions", "determinants",
    "distance", "dropout", "einstein", "elementwise", "embedding", "fractional_pooling", "index", "indexing",
    "interpolation", "linalg", "loops", "loss", "matrix_norms", "norm", "padding", "parts", "pooling",
    "probability", "random", "rearrange", "recurrent", "reduce", "replicas", "sampling", "searching", "segments",
    "selection", "shape", "slices", "sparse", "special", "systems", "unpooling",
)  # fmt: skip
"""Every module of this folder: importing one registers its ops."""

__all__: list[str] = []
__all__ += control.__all__
__all__ += einstein.__all__
__all__ += elementwise.__all__
__all__ += index.__all__
__all__ += linalg.__all__
__all__ += reduce.__all__
__all__ += searching.__all__
__all__ += selection.__all__
__all__ += shape.__all__
__all__ += special.__all__
__all__ += probability.__all__


@cache
def registry() -> Mapping[str, type[Op]]:
    """Every op by its name on the wire."""
    for family in FAMILIES:
        import_module(f"telegrad.ops.{family}")
    return REGISTRY
