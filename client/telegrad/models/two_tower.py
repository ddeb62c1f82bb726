"""Two towers for retrieval: a vector for a query, a vector for an item, and their product as the score.

Items of the same batch are the wrong answers (Yi et al. 2019), so a step costs one batch of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from telegrad import creation, ops
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn.activation import Dropout, ReLU
from telegrad.nn.container import ModuleList, Sequential
from telegrad.nn.embedding import Embedding
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.ops.searching import topk
from telegrad.tensor import Tensor


class Tower(Module):
    """Categories and numbers to a vector of length 1.

    ``categories`` are the sizes of the vocabularies, each with an embedding of its own; ``numbers`` is how many numbers
    there are beside. ``hidden`` layers with ReLU and dropout follow, and a linear one to ``out_features``.
    """

    def __init__(
        self,
        categories: Sequence[int],
        numbers: int = 0,
        embedding_dim: int = 32,
        hidden: Sequence[int] = (256, 128),
        out_features: int = 64,
        dropout: float = 0.0,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if not categories and not numbers:
            raise ShapeError("Tower: takes one category or number at least")
        self.numbers = numbers
        self.embeddings = ModuleList([Embedding(size, embedding_dim, dtype=dtype) for size in categories])
        width = embedding_dim * len(categories) + numbers
        layers: list[Module] = []
        for outputs in hidden:
            layers += [Linear(width, outputs, dtype=dtype), ReLU(), Dropout(dropout)]
            width = outputs
        self.layers = Sequential(*layers, Linear(width, out_features, dtype=dtype))

    def forward(self, categories: Tensor | None, numbers: Tensor | None = None) -> Tensor:
        """categories[batch, kinds] of integers, numbers[batch, n] -> [batch, out_features], each row of length 1."""
        kinds = 0 if categories is None else categories.shape[-1]
        count = 0 if numbers is None else numbers.shape[-1]
        if kinds != len(self.embeddings) or count != self.numbers:
            raise ShapeError(
                f"Tower: takes {len(self.embeddings)} categories and {self.numbers} numbers for each row, not {kinds}"
                f" and {count}"
            )
        parts = [table(categories[:, i]) for i, table in enumerate(self.embeddings) if categories is not None]
        if numbers is not None:
            parts.append(numbers)
        return F.normalize(self.layers(ops.concat(parts, axis=1)), dim=-1)


class TwoTower(Module):
    """A tower for queries and one for items.

    ::

        model = TwoTower(Tower([users, countries], numbers=3), Tower([items, brands]))

        @tg.function
        def step(user, numbers, item, log_frequency):
            loss = model.loss(model.query(user, numbers), model.item(item), item[:, 0], log_frequency)
            optimizer.minimize(loss)
            return loss

        places, scores = model.retrieve(model.query(user, numbers), model.item(all_items), k=10)
    """

    def __init__(self, query: Module, item: Module, temperature: float = 0.05) -> None:
        super().__init__()
        if temperature <= 0:
            raise GraphError(f"TwoTower: temperature must be positive, not {temperature}")
        self.query, self.item, self.temperature = query, item, temperature

    def forward(self, queries: Tensor, items: Tensor) -> Tensor:
        """The scores of vectors, queries[m, d] and items[n, d] -> [m, n]: cosines over the temperature."""
        return ops.matmul(queries, items.mT) * (1 / self.temperature)

    def loss(
        self,
        queries: Tensor,
        items: Tensor,
        item_ids: Tensor | None = None,
        log_frequency: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The mean cross-entropy of row i's item among all items of the batch: queries[n, d], items[n, d].

        With ``item_ids``[n] the same item in another row is no wrong answer. ``log_frequency``[n], the logarithm of how
        often an item is drawn into a batch, is taken off its score, since frequent items would otherwise be wrong
        answers too often (equation 5 of the paper). ``weight``[n] weighs the rows.
        """
        if queries.ndim != 2 or queries.shape != items.shape:
            raise ShapeError(f"TwoTower.loss({queries.type}, {items.type}): takes two tensors of [n, d]")
        scores = self(queries, items)
        if log_frequency is not None:
            scores = scores - log_frequency
        own = creation.arange(scores.shape[0])
        if item_ids is not None:
            is_own = ops.equal(own.unsqueeze(1), own)
            is_same = ops.equal(item_ids.unsqueeze(1), item_ids) & ops.logical_not(is_own)
            scores = ops.where(is_same, scores.literal(-math.inf, scores.dtype), scores)
        losses = F.cross_entropy(scores, own, reduction="none")
        if weight is None:
            return losses.mean()
        return (losses * weight).sum() / weight.sum()

    def retrieve(self, queries: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(the rows of the ``k`` best items for each query[m, d], best first, their scores): [m, k] each."""
        scores, rows = topk(self(queries, items), k)
        return rows, scores
