"""Batch norm over the rows of all replicas of a data-parallel function."""

from __future__ import annotations

from telegrad import context, ops
from telegrad.creation import full
from telegrad.ir import types
from telegrad.nn import functional as F
from telegrad.nn.module import Module
from telegrad.nn.norm import _BatchNorm
from telegrad.ops import norm
from telegrad.ops.reduce import widened
from telegrad.replicas import all_reduce
from telegrad.tensor import Tensor


class SyncBatchNorm(_BatchNorm):
    """[N, C, ...] normalised for each channel over the rows of all replicas, as if one had them all.

    Inside ``@tg.function(replicas=n)`` the statistics are those of the whole batch, each replica counting by its rows,
    and the derivative goes through them; elsewhere it is the batch norm that it is called after.
    """

    ranks = (2, 3, 4, 5)

    def forward(self, input: Tensor) -> Tensor:
        """batch_norm(input) over all replicas."""
        trace = context.TRACE.get()
        is_learning = self.training or self.running_mean is None
        if trace is None or trace.replication is None or not is_learning:
            return super().forward(input)
        self._check(input)
        momentum = self._momentum()
        axes = (0, *range(2, input.ndim))
        wide, line = widened(input), (input.shape[1], *(1,) * (input.ndim - 2))
        mean = all_reduce(ops.mean(wide, axis=axes))
        centred = wide - ops.reshape(mean, line)
        var = all_reduce(ops.mean(ops.square(centred), axis=axes))
        here = input.size // max(input.shape[1], 1)
        count = all_reduce(full((), float(here), dtype=types.float64), "sum")
        unbiased = var * ops.astype(count / ops.maximum(count - 1.0, 1.0), var.dtype)
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased)):
            if running is not None:
                F._move(running, batch, momentum, "SyncBatchNorm")
        normal = centred / ops.reshape(ops.sqrt(var + self.eps), line)
        return norm.scaled(input, normal, self.weight, self.bias, "SyncBatchNorm")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: object = None) -> Module:
        """The module with a SyncBatchNorm of the same parameters and statistics for every batch norm in it.

        A batch norm itself is returned converted, anything else changed in place, as in PyTorch. ``process_group`` is
        there for PyTorch's signature.
        """
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            return cls._of(module)
        for name, child in list(module.named_children()):
            module.add_module(name, cls.convert_sync_batchnorm(child))
        return module

    @classmethod
    def _of(cls, module: _BatchNorm) -> SyncBatchNorm:
        found = cls.__new__(cls)
        Module.__init__(found)
        found.train(module._training)
        found.num_features, found.eps, found.momentum = module.num_features, module.eps, module.momentum
        found.affine, found.track_running_stats = module.affine, module.track_running_stats
        for name in ("weight", "bias"):
            found.register_parameter(name, getattr(module, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            found.register_buffer(name, getattr(module, name))
        return found
