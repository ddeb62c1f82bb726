"""Tables of vectors, with PyTorch's arguments and initial values; and places as rotations."""

from __future__ import annotations

import numpy as np

from telegrad import ops
from telegrad.creation import arange, asarray, zeros
from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.module import Module
from telegrad.ops.embedding import row_number
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


class _Table(Module):
    """What both have in common. Initial values are standard normal, the row ``padding_idx`` is zero."""

    def _build(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        weight: Tensor | None,
        dtype: DType,
    ) -> None:
        name = type(self).__name__
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = row_number(padding_idx, num_embeddings, name)
        if weight is None:
            self.weight = Parameter(zeros((num_embeddings, embedding_dim), dtype=dtype))
            self.reset_parameters()
        elif weight.shape != (num_embeddings, embedding_dim):
            raise ShapeError(f"{name}: the weight {weight.type} must be [{num_embeddings}, {embedding_dim}]")
        else:
            self.weight = weight if isinstance(weight, Parameter) else Parameter(weight)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            value = self.weight.detach()
            value[self.padding_idx] = 0
            self.weight.assign(value)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Embedding(_Table):
    """The rows of weight[classes, dim] at integer inputs; see `functional.embedding`. Initially standard normal."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self._build(num_embeddings, embedding_dim, padding_idx, _weight, dtype)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if _freeze:
            self.weight.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """weight[input]."""
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """A table with given rows, which do not learn unless ``freeze`` is false."""
        if embeddings.ndim != 2:
            raise ShapeError(f"Embedding.from_pretrained: takes [classes, dim], not {embeddings.type}")
        rows, dim = embeddings.shape
        return cls(rows, dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)


class RotaryEmbedding(Module):
    """Turns pairs of features of x[..., time, dim] by angles that grow with the place (Su et al. 2021, section 3.2.2).

    The pair i turns by place * base**(-2 i / dim). Pairs are features i and i + dim / 2, as in GPT-NeoX and LLaMA, or
    with ``interleaved`` neighbours, as in GPT-J and the paper. Products of turned queries and keys depend on their
    distance alone.
    """

    def __init__(self, dim: int, base: float = 10000.0, *, interleaved: bool = False) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ShapeError(f"RotaryEmbedding: dim must be even and positive, which {dim} is not")
        self.dim, self.base, self.interleaved = dim, base, interleaved

    def forward(self, x: Tensor, offset: int | Tensor = 0) -> Tensor:
        """x turned; its first place is ``offset``, what a cache of keys holds already."""
        if x.ndim < 2 or x.shape[-1] != self.dim:
            raise ShapeError(f"RotaryEmbedding: takes [..., time, {self.dim}], not {x.type}")
        wide = x.dtype if x.dtype.itemsize >= 4 else types.float32
        rates = np.power(self.base, -np.arange(0, self.dim, 2) / self.dim)
        places = ops.astype(arange(x.shape[-2]) + offset, wide)
        angles = ops.expand_dims(places, axis=1) * asarray(rates, dtype=wide)
        cos, sin = ops.cos(angles), ops.sin(angles)
        full = ops.astype(x, wide)
        half = self.dim // 2
        a, b = (full[..., ::2], full[..., 1::2]) if self.interleaved else (full[..., :half], full[..., half:])
        turned = [a * cos - b * sin, b * cos + a * sin]
        if self.interleaved:
            out = ops.reshape(ops.stack(turned, axis=-1), x.shape)
        else:
            out = ops.concat(turned, axis=-1)
        return ops.astype(out, x.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, base={self.base}" + (", interleaved=True" if self.interleaved else "")


class EmbeddingBag(_Table):
    """The sum, mean or largest of the rows of weight[classes, dim] in each bag; see `functional.embedding_bag`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self._build(num_embeddings, embedding_dim, padding_idx, _weight, dtype)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """One row for each bag."""
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mode={self.mode!r}"
