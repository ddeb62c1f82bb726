"""A softmax over many classes in which rare ones share clusters and get fewer features (Grave et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from telegrad import ops
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn.container import ModuleList, Sequential
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.ops.index import CheckedIndex
from telegrad.tensor import Tensor


class AdaptiveLogSoftmaxOutput(NamedTuple):
    """What `AdaptiveLogSoftmaxWithLoss` gives."""

    output: Tensor
    """The log-probability of each target."""
    loss: Tensor
    """Their mean times -1."""


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of ``n_classes`` classes, by number from the most to the least frequent.

    The first cutoffs[0] have a score each in the head, as has each cluster of those between two cutoffs; the i-th
    cluster's classes have scores from in_features / div_value ** (i + 1) features. PyTorch runs a cluster on the rows
    whose target is in it; a graph has one shape whatever the targets are, so here clusters run on all rows: what is
    saved is the width, not the rows.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        given = list(cutoffs)
        if not given or given != sorted(set(given)) or given[0] < 1 or given[-1] > n_classes - 1:
            raise GraphError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs must grow from 1 or more to {n_classes - 1} or less, not {given}"
            )
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, [*given, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = given[0], len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, dtype=dtype)
        self.tail = ModuleList()
        for i, (first, last) in enumerate(pairwise(self.cutoffs)):
            width = int(in_features // div_value ** (i + 1))
            down = Linear(in_features, width, bias=False, dtype=dtype)
            self.tail.append(Sequential(down, Linear(width, last - first, bias=False, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> AdaptiveLogSoftmaxOutput:
        """(log-probability of each target[N] by input[N, in_features], the loss); N may be missing.

        IndexRange, when it runs, for a target that is no class.
        """
        if input_.ndim not in (1, 2) or input_.shape[-1] != self.in_features or target_.shape != input_.shape[:-1]:
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss({input_.type}, {target_.type}): takes an input of [N, {self.in_features}]"
                " and a target of [N]"
            )
        has_batch = input_.ndim == 2
        input = input_ if has_batch else input_.unsqueeze(0)
        target = CheckedIndex(self.n_classes, wraps=False)(target_ if has_batch else target_.unsqueeze(0))
        column, output = target, ops.zeros_like(input[:, 0])
        for i, (first, last) in enumerate(pairwise(self.cutoffs)):
            is_here = (target >= first) & (target < last)
            place = ops.where(is_here, target - first, 0)
            scores = F.log_softmax(self.tail[i](input), 1)
            output = output + ops.where(is_here, _at(scores, place), ops.zeros_like(output))
            column = ops.where(is_here, self.shortlist_size + i, column)
        output = output + _at(F.log_softmax(self.head(input), 1), column)
        loss = -output.mean()
        return AdaptiveLogSoftmaxOutput(output if has_batch else output.squeeze(0), loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: input[N, in_features] -> [N, n_classes]."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i in range(self.n_clusters):
            cluster = head[:, self.shortlist_size + i].unsqueeze(1)
            parts.append(F.log_softmax(self.tail[i](input), 1) + cluster)
        return ops.concat(parts, axis=1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class: input[N, in_features] -> [N]."""
        top = self.head(input).argmax(1)
        return ops.where(top < self.shortlist_size, top, self.log_prob(input).argmax(1))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.n_classes}, cutoffs={self.cutoffs[:-1]}, div_value={self.div_value}"


def _at(scores: Tensor, place: Tensor) -> Tensor:
    return ops.squeeze(ops.take_along_axis(scores, ops.expand_dims(place, axis=1), axis=1), axis=1)
