"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from telegrad import ops
from telegrad.errors import GraphError, ShapeError
from telegrad.tensor import Tensor
from telegrad.variable import Variable


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other."""
    parts = [ops.reshape(parameter, (-1,)) for parameter in parameters]
    if not parts:
        raise GraphError("parameters_to_vector: takes one parameter at least")
    return ops.concat(parts, axis=0)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Variable]) -> None:
    """Assign a vector's elements to the parameters, one after the other; ShapeError if there are more or fewer."""
    found = list(parameters)
    count = sum(parameter.size for parameter in found)
    if vec.shape != (count,):
        raise ShapeError(f"vector_to_parameters: the parameters have {count} elements, the vector is {vec.type}")
    start = 0
    for parameter in found:
        part = ops.reshape(vec[start : start + parameter.size], parameter.shape)
        parameter.assign(ops.astype(part, parameter.dtype))
        start += parameter.size
