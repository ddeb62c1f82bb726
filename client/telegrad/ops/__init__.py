"""Every op, and the functions over them. A new op is a class in one of these modules and nothing else."""

from telegrad.ops import control, elementwise, reduce, shape

__all__ = ["control", "elementwise", "reduce", "shape"]
