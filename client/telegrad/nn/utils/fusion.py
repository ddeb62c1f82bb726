"""A batch norm taken into the layer before it, for models that no longer learn: one op less, the same outputs."""

from __future__ import annotations

import copy
from typing import TypeVar

from telegrad import context, ops
from telegrad.errors import GraphError, ShapeError
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.variable import Parameter

Layer = TypeVar("Layer", bound=Module)


def fuse_conv_bn_eval(conv: Layer, bn: Module, transpose: bool = False) -> Layer:
    """A copy of a convolution that does what it and the norm behind it do; both must be in evaluation mode.

    ``transpose`` for a transposed convolution (without groups), whose outputs are axis 1 of its weight.
    """
    axis = 1 if transpose else 0
    return _fused(conv, bn, axis, "fuse_conv_bn_eval")


def fuse_linear_bn_eval(linear: Linear, bn: Module) -> Linear:
    """A copy of a linear layer that does what it and the norm behind it do; both must be in evaluation mode."""
    return _fused(linear, bn, 0, "fuse_linear_bn_eval")


def _fused(layer: Layer, bn: Module, axis: int, op: str) -> Layer:
    if layer._training or bn._training:
        raise GraphError(f"{op}: call eval() on both modules first; a norm that learns cannot be taken in")
    if bn.running_mean is None:
        raise GraphError(f"{op}: the norm has no running statistics")
    if layer.weight.shape[axis] != bn.num_features:
        raise ShapeError(f"{op}: the layer has {layer.weight.shape[axis]} outputs, the norm is for {bn.num_features}")
    fused = copy.deepcopy(layer)
    with context.no_grad():
        scale: Tensor = 1 / ops.sqrt(bn.running_var + bn.eps)
        scale = scale if bn.weight is None else scale * bn.weight
        shift = (0 if layer.bias is None else layer.bias) - bn.running_mean
        bias = shift * scale if bn.bias is None else shift * scale + bn.bias
        shape = tuple(-1 if i == axis else 1 for i in range(layer.weight.ndim))
        weight = ops.astype(layer.weight * ops.reshape(scale, shape), layer.weight.dtype)
    fused.weight = Parameter(weight, layer.weight.requires_grad)
    fused.bias = Parameter(ops.astype(bias, weight.dtype), layer.weight.requires_grad)
    return fused
