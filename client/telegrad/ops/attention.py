"""Scaled dot-product attention: one joint op that keeps the logarithm of each row's sum, and no matrix of weights.

Forward it goes through the queries in blocks; backward it makes the weights again from that logarithm (Dao et al.
2022, without the tiles). A row that may attend to nothing gives zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.ir import types as t
from telegrad.ir.op import Cost, Op
from telegrad.ir.types import Shape, Type, broadcast_shapes, product
from telegrad.ir.value import V, Value
from telegrad.ir.xp import Array, ArrayModule
from telegrad.ops import elementwise as e
from telegrad.ops import random as philox
from telegrad.ops import reduce as r
from telegrad.ops import shape as s
from telegrad.ops.linalg import Matmul
from telegrad.ops.probability import softmax
from telegrad.ops.reduce import widened


@dataclass(frozen=True)
class Attention(Op):
    """q[..., L, E], k[..., S, E], v[..., S, D] and maybe bias[..., L, S] -> out[..., L, D], total[..., L].

    out = softmax(q k^T * scale + bias) v, and total is the logarithm of the sum of exponentials of each row, in
    float32 at least. With ``is_causal``, query i sees keys 0 to i.
    """

    scale: float
    is_causal: bool = False

    uses_blas: ClassVar[bool] = True

    def infer(self, q: Type, k: Type, v: Type, *bias: Type) -> tuple[Type, Type]:
        given = ", ".join(map(str, (q, k, v, *bias)))
        if len(bias) > 1 or not q.dtype.is_float or any(x.dtype is not q.dtype for x in (k, v, *bias)):
            raise DTypeError(f"attention({given}): takes three tensors and maybe a bias, of one floating-point dtype")
        lead = q.shape[:-2]
        if q.ndim < 2 or k.shape != (*lead, *k.shape[-2:]) or v.shape != (*lead, *v.shape[-2:]):
            raise ShapeError(f"attention({given}): queries, keys and values must have the same leading axes")
        if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
            raise ShapeError(
                f"attention({given}): queries and keys must have the same last axis, keys and values the same number"
            )
        if any(b.shape != (*lead, q.shape[-2], k.shape[-2]) for b in bias):
            raise ShapeError(f"attention({given}): the bias must be {[*lead, q.shape[-2], k.shape[-2]]}")
        wide = q.dtype if q.dtype.itemsize >= 4 else t.float32
        return Type((*lead, q.shape[-2], v.shape[-1]), q.dtype), Type((*lead, q.shape[-2]), wide)

    def vjp(
        self, g: tuple[Value | None, Value | None], out: tuple[Value, Value], q: Value, k: Value, v: Value, *bias: Value
    ) -> tuple[Value | None, ...]:
        g_out, g_total = g
        if g_out is None and g_total is None:
            return (None,) * (3 + len(bias))
        dtype = q.dtype
        q, k, v, bias = widened(q), widened(k), widened(v), tuple([widened(b) for b in bias])
        total = s.expand_dims(out[1], axis=-1)
        scores = self.scores(q, k, *bias)
        weights = e.where(e.equal(total, -math.inf), 0, e.exp(scores - total))
        found: Any = 0
        dv: Value | None = None
        if g_out is not None:
            wide = widened(g_out)
            dv = Matmul()(s.matrix_transpose(weights), wide)
            row = r.sum(wide * widened(out[0]), axis=-1, keepdims=True)
            found = weights * (Matmul()(wide, s.matrix_transpose(v)) - row)
        if g_total is not None:
            found = weights * s.expand_dims(g_total, axis=-1) + found
        dq = Matmul()(found, k) * self.scale
        dk = Matmul()(s.matrix_transpose(found), q) * self.scale
        back = [dq, dk, dv, *([found] if bias else [])]
        return tuple([None if x is None else e.astype(x, dtype) for x in back])

    def scores(self, q: V, k: V, *bias: V) -> V:
        """q k^T * scale + bias, minus infinity where a query must not look."""
        found = Matmul()(q, s.matrix_transpose(k)) * self.scale
        if bias:
            found = found + bias[0]
        if self.is_causal:
            rows, columns = q.shape[-2], k.shape[-2]
            row = q.bind(e.Iota((rows, 1), 0, t.int64), ())[0]
            column = q.bind(e.Iota((1, columns), 1, t.int64), ())[0]
            found = e.where(column <= row, found, -math.inf)
        return found

    def eval(self, xp: ArrayModule, q: Array, k: Array, v: Array, *bias: Array) -> tuple[Array, Array]:
        return xp.attention(q, k, v, bias[0] if bias else None, scale=self.scale, is_causal=self.is_causal)

    def cost(self, *types: Type) -> Cost:
        q, k, v = types[:3]
        pairs = product(q.shape[:-1]) * k.shape[-2]
        moved = sum(x.nbytes for x in (*types, *self.infer(*types)))
        return Cost(2 * pairs * (q.shape[-1] + v.shape[-1]) + 5 * pairs, moved)


def scaled_dot_product_attention(
    query: V,
    key: V,
    value: V,
    attn_mask: V | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: V | None = None,
    stream: int = 0,
) -> V:
    """softmax(query key^T * scale + mask) value: query[..., L, E], key[..., S, E], value[..., S, D] -> [..., L, D].

    ``attn_mask``, broadcast to [..., L, S], is boolean (True: may attend) or is added. ``scale`` is 1 / sqrt(E) if not
    given. With ``is_causal`` query i attends to keys 0 to i. With ``enable_gqa`` key and value may have fewer heads,
    axis -3, each of which serves equally many of query's. A row that may attend to nothing gives zeros.
    """
    op = "scaled_dot_product_attention"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(f"{op}({query.type}, {key.type}, {value.type}): takes tensors of two axes or more")
    q, k, v = e.common(query, key, value)
    if enable_gqa:
        k, v = (_repeated(x, q.shape[-3] if q.ndim > 2 else 1, op) for x in (k, v))
    lead = broadcast_shapes(broadcast_shapes(q.shape[:-2], k.shape[:-2], op=op), v.shape[:-2], op=op)
    q, k, v = (s.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (q, k, v))
    mask: list[V] = []
    if attn_mask is not None:
        if is_causal:
            raise GraphError(f"{op}: takes a mask or is_causal, not both")
        if attn_mask.dtype.kind == "bool":
            attn_mask = e.where(attn_mask, q.literal(0.0, q.dtype), q.literal(-math.inf, q.dtype))
        mask = [s.broadcast_to(e.astype(attn_mask, q.dtype), (*lead, q.shape[-2], k.shape[-2]))]
    factor = 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale)
    attention = Attention(factor, is_causal)
    if dropout_p == 0.0:
        return attention.results(q, k, v, *mask)[0]
    if dropout_key is None:
        raise GraphError(f"{op}: dropout needs a key")
    scores = attention.scores(q, k, *mask)
    top = r.max(scores, axis=-1, keepdims=True) if k.shape[-2] else scores
    weights = e.where(e.equal(top, -math.inf), 0, softmax(scores, axis=-1))
    return Matmul()(philox.dropout(weights, dropout_key, p=dropout_p, stream=stream), v)


def _repeated(x: V, heads: int, op: str) -> V:
    """Every head, axis -3, as often in a row as makes ``heads``."""
    own = x.shape[-3] if x.ndim > 2 else 1
    if own == heads:
        return x
    if own == 0 or heads % own:
        raise ShapeError(f"{op}({x.type}): {own} heads cannot serve {heads} equally")
    shape: Sequence[int] | Shape = (*x.shape[:-3], own, heads // own, *x.shape[-2:])
    wide = s.broadcast_to(s.expand_dims(x, axis=-3), shape)
    return s.reshape(wide, (*x.shape[:-3], heads, *x.shape[-2:]))


__all__: list[str] = []
"""Nothing here is an array function: the public face is `telegrad.nn.functional`."""
