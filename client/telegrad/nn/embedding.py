"""Tables of vectors."""

from __future__ import annotations

from telegrad.creation import zeros
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.tensor import Parameter, Tensor


class Embedding(Module):
    """The rows of weight[classes, dim] at integer inputs. Initial values are standard normal."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = init.normal_(Parameter(zeros((num_embeddings, embedding_dim))))

    def forward(self, input: Tensor) -> Tensor:
        """weight[input]."""
        return F.embedding(input, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
