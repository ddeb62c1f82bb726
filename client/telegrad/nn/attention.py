"""Multi-head attention, with PyTorch's parameters."""

from __future__ import annotations

import math

from telegrad import ops
from telegrad.creation import zeros
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.variable import Parameter


def additive(mask: Tensor | None, dtype: DType) -> Tensor | None:
    """A mask that is added to scores: minus infinity where a boolean one says True, must not attend."""
    if mask is None or mask.dtype.is_float:
        return mask
    if mask.dtype.kind != "bool":
        raise GraphError(f"a mask must be boolean or floating-point, not {mask.type}")
    return ops.where(mask, mask.literal(-math.inf, dtype), mask.literal(0.0, dtype))


class MultiheadAttention(Module):
    """Attention of ``num_heads`` heads side by side (Vaswani et al. 2017), by query, key and value.

    Inputs are [length, batch, embed_dim], with ``batch_first`` [batch, length, embed_dim], or [length, embed_dim].
    Initial values as in PyTorch: Xavier uniform, zero biases.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads:
            raise ShapeError(f"MultiheadAttention: {embed_dim} features must be divisible into {num_heads} heads")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn
        is_joint = self.kdim == self.vdim == embed_dim

        def parameter(wanted: bool, *shape: int) -> Parameter | None:
            return Parameter(zeros(shape, dtype=dtype)) if wanted else None

        if is_joint:
            self.register_parameter("in_proj_weight", parameter(True, 3 * embed_dim, embed_dim))
        for name, width in (("q", embed_dim), ("k", self.kdim), ("v", self.vdim)):
            self.register_parameter(f"{name}_proj_weight", parameter(not is_joint, embed_dim, width))
        if not is_joint:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", parameter(bias, 3 * embed_dim))
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        self.register_parameter("bias_k", parameter(add_bias_kv, 1, 1, embed_dim))
        self.register_parameter("bias_v", parameter(add_bias_kv, 1, 1, embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(the result in query's shape, the weights [batch, L, S], or of each head [batch, heads, L, S], or None).

        ``key_padding_mask``[batch, S] and ``attn_mask``[L, S] or [batch * heads, L, S] are True where attention must
        not go, or are added. ``is_causal`` is a hint that ``attn_mask`` is causal, as in PyTorch. Without
        ``need_weights`` the joint op runs, which keeps no weights.
        """
        has_batch = query.ndim == 3
        if query.ndim not in (2, 3) or key.ndim != query.ndim or value.ndim != query.ndim:
            raise ShapeError(
                f"MultiheadAttention({query.type}, {key.type}, {value.type}): takes three tensors of two or three axes"
            )
        if is_causal and attn_mask is None:
            raise GraphError("MultiheadAttention: is_causal needs an attn_mask, as in PyTorch")
        if not has_batch:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (ops.moveaxis(x, 0, 1) for x in (query, key, value))
        q, k, v = self._projected(query, key, value)
        k, v = self._extended(k, self.bias_k), self._extended(v, self.bias_v)
        mask = self._mask(attn_mask, key_padding_mask, query, k.shape[1] - key.shape[1] + int(self.add_zero_attn))
        q, k, v = (self._heads(x) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = (ops.concat((x, ops.zeros_like(x[:, :, :1])), axis=2) for x in (k, v))
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = ops.matmul(q, k.mT) * (1 / math.sqrt(self.head_dim))
            weights = F.softmax(scores if mask is None else scores + mask)
            weights = F.dropout(weights, dropout, dropout > 0)
            out = ops.matmul(weights, v)
            weights = weights.mean(axis=1) if average_attn_weights else weights
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(ops.moveaxis(out, 1, 2).reshape((*query.shape[:2], self.embed_dim)))
        if not has_batch:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else ops.moveaxis(out, 0, 1)), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e = self.embed_dim
        bias = self.in_proj_bias
        parts = [None if bias is None else bias[i * e : (i + 1) * e] for i in range(3)]
        if self.in_proj_weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        elif query is key and key is value:  # one product in place of three
            q, k, v = (F.linear(query, self.in_proj_weight, bias)[..., i * e : (i + 1) * e] for i in range(3))
            return q, k, v
        else:
            weights = [self.in_proj_weight[i * e : (i + 1) * e] for i in range(3)]
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, parts, strict=True))
        return q, k, v

    def _extended(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x[batch, S, E] with the learnt key or value behind."""
        if bias is None:
            return x
        return ops.concat((x, ops.broadcast_to(bias, (x.shape[0], 1, self.embed_dim))), axis=1)

    def _heads(self, x: Tensor) -> Tensor:
        """[batch, length, E] -> [batch, heads, length, E / heads]."""
        return ops.moveaxis(x.reshape((*x.shape[:2], self.num_heads, self.head_dim)), 1, 2)

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, query: Tensor, more: int) -> Tensor | None:
        """Both masks as one that is added, over ``more`` keys than were given."""
        batch, dtype = query.shape[0], self.out_proj.weight.dtype
        mask = additive(attn_mask, dtype)
        if mask is not None and mask.ndim == 3:
            mask = mask.reshape((batch, self.num_heads, *mask.shape[1:]))
        if padding is not None:
            closed = additive(padding, dtype)
            assert closed is not None
            closed = closed.reshape((batch, 1, 1, padding.shape[-1]))
            mask = closed if mask is None else mask + closed
        if mask is not None and more:
            mask = F.pad(mask, (0, more))
        return mask
