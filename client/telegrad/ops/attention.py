"""Scaled dot-product attention: one joint op that keeps the logarithm of each row's sum, and no matrix of weights.

Forward and backward go through the queries in blocks; the backward makes the weights again from that logarithm (Dao et
al. 2022), so memory is linear in their number. A row that may attend to nothing gives zeros.
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
from telegrad.ops.control import Barrier
from telegrad.ops.linalg import Matmul
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
        more = self._bias_gradient(g_out, g_total, out, q, k, v, *bias) if bias else ()
        if g_out is None:
            return (*self._total_gradient(g_total, out[1], q, k, *bias), None, *more)
        row = r.sum(widened(g_out) * widened(out[0]), axis=-1)
        row = row if g_total is None else row - g_total
        wide = [widened(x) for x in (g_out, q, k, v)]
        found = AttentionGradient(self.scale, self.is_causal).results(*wide, out[1], row, *[widened(b) for b in bias])
        return (*[e.astype(x, q.dtype) for x in found], *more)

    def _total_gradient(self, g: Value | None, total: Value, q: Value, k: Value, *bias: Value) -> tuple[Value, Value]:
        dtype = q.dtype
        q, k, bias = widened(q), widened(k), tuple([widened(b) for b in bias])
        assert g is not None
        found = _weights(self.scores(q, k, *bias), total) * s.expand_dims(g, axis=-1) * self.scale
        return e.astype(Matmul()(found, k), dtype), e.astype(Matmul()(s.matrix_transpose(found), q), dtype)

    def _bias_gradient(
        self,
        g_out: Value | None,
        g_total: Value | None,
        out: tuple[Value, Value],
        q: Value,
        k: Value,
        v: Value,
        bias: Value,
    ) -> tuple[Value]:
        """As large as the bias may be; dead code where the bias is a mask."""
        weights = _weights(self.scores(widened(q), widened(k), widened(bias)), out[1])
        found: Any = 0
        if g_out is not None:
            wide = widened(g_out)
            row = r.sum(wide * widened(out[0]), axis=-1, keepdims=True)
            found = weights * (Matmul()(wide, s.matrix_transpose(widened(v))) - row)
        if g_total is not None:
            found = weights * s.expand_dims(g_total, axis=-1) + found
        return (e.astype(found, bias.dtype),)

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


@dataclass(frozen=True)
class AttentionGradient(Op):
    """The gradients of q, k, v from g[..., L, D], that of the result of `Attention`.

    g, q, k, v, total[..., L], row[..., L] and maybe bias -> dq, dk, dv. With p = exp(q k^T * scale + bias - total) and
    f = p * (g v^T - row) they are f k * scale, f^T q * scale and p^T g; row is the sum of g times the result over D,
    less the gradient of total. All are of one dtype, float32 or float64.
    """

    reference = "Dao et al. 2022, FlashAttention, appendix B.2"

    scale: float
    is_causal: bool = False

    uses_blas: ClassVar[bool] = True

    @property
    def forward(self) -> Attention:
        """The op whose gradient it is."""
        return Attention(self.scale, self.is_causal)

    def infer(self, g: Type, q: Type, k: Type, v: Type, total: Type, row: Type, *bias: Type) -> tuple[Type, ...]:
        wanted = self.forward.infer(q, k, v, *bias)
        if q.dtype.itemsize < 4:
            raise DTypeError(f"{self.name}({g}, {q}, {k}, {v}): takes float32 or float64")
        if (g, total) != wanted or row != total:
            given = ", ".join(map(str, (g, q, k, v, total, row)))
            raise ShapeError(f"{self.name}({given}): the gradient must be {wanted[0]}, the sums {wanted[1]}")
        return q, k, v

    def in_primitives(
        self, g: Value, q: Value, k: Value, v: Value, total: Value, row: Value, *bias: Value
    ) -> tuple[Value, Value, Value]:
        """The reference form."""
        weights = _weights(self.forward.scores(q, k, *bias), total)
        found = weights * (Matmul()(g, s.matrix_transpose(v)) - s.expand_dims(row, axis=-1))
        dq = Matmul()(found, k) * self.scale
        dk = Matmul()(s.matrix_transpose(found), q) * self.scale
        dv = Matmul()(s.matrix_transpose(weights), g)
        return dq, dk, dv

    def vjp(
        self,
        cotangents: tuple[Value | None, ...],
        out: tuple[Value, ...],
        g: Value,
        q: Value,
        k: Value,
        v: Value,
        total: Value,
        row: Value,
        *bias: Value,
    ) -> tuple[Value | None, ...]:
        if all(x is None for x in cotangents):
            return (None,) * (6 + len(bias))
        a, b, c = (s.zeros_like(x) if y is None else y for y, x in zip(cotangents, (q, k, v), strict=True))
        weights = _weights(self.forward.scores(q, k, *bias), total)
        slope = Matmul()(g, s.matrix_transpose(v)) - s.expand_dims(row, axis=-1)
        # of f, which dq and dk are linear in, then of p, which f and dv are, then of the scores
        by_f = (Matmul()(a, s.matrix_transpose(k)) + Matmul()(q, s.matrix_transpose(b))) * self.scale
        by_slope = by_f * weights
        by_scores = weights * (by_f * slope + Matmul()(g, s.matrix_transpose(c)))
        f = weights * slope
        dg = Matmul()(by_slope, v) + Matmul()(weights, c)
        dq = (Matmul()(f, b) + Matmul()(by_scores, k)) * self.scale
        dk = (Matmul()(s.matrix_transpose(f), a) + Matmul()(s.matrix_transpose(by_scores), q)) * self.scale
        dv = Matmul()(s.matrix_transpose(by_slope), g)
        sums = (-r.sum(by_scores, axis=-1), -r.sum(by_slope, axis=-1))
        return (dg, dq, dk, dv, *sums, *([by_scores] if bias else []))

    def eval(
        self, xp: ArrayModule, g: Array, q: Array, k: Array, v: Array, total: Array, row: Array, *bias: Array
    ) -> tuple[Array, Array, Array]:
        how = {"scale": self.scale, "is_causal": self.is_causal}
        return xp.attention_gradient(g, q, k, v, total, row, bias[0] if bias else None, **how)

    def cost(self, *types: Type) -> Cost:
        q, k, v = types[1:4]
        pairs = product(q.shape[:-1]) * k.shape[-2]
        moved = sum(x.nbytes for x in (*types, q, k, v))
        return Cost(2 * pairs * (3 * q.shape[-1] + 2 * v.shape[-1]) + 6 * pairs, moved)


@dataclass(frozen=True)
class DroppedAttention(Op):
    """`Attention` whose weights are dropped with probability p and divided by 1 - p otherwise; takes a random key, too.

    The backward makes weights and choices again from the logarithms of the sums and the key: neither is kept.
    """

    scale: float
    p: float
    stream: int = 0
    is_causal: bool = False

    uses_blas: ClassVar[bool] = True
    expands: ClassVar[bool] = True

    @property
    def whole(self) -> Attention:
        """The attention without dropout."""
        return Attention(self.scale, self.is_causal)

    def infer(self, q: Type, k: Type, v: Type, key: Type, *bias: Type) -> tuple[Type, Type]:
        if not 0.0 <= self.p < 1.0:
            raise GraphError(f"{self.name}: p must be from 0 to below 1, which {self.p} is not")
        self._kept_op(q.shape, k.shape).infer(key)
        return self.whole.infer(q, k, v, *bias)

    def _kept_op(self, q: Shape, k: Shape) -> philox.RandomUniform:
        return philox.RandomUniform((*q[:-1], k[-2]), t.float32, self.stream)

    def _kept(self, weights: Value, q: Value, k: Value, key: Value) -> Value:
        """The weights that are kept, divided by 1 - p."""
        return e.where(self._kept_op(q.shape, k.shape)(key) >= self.p, weights * (1 / (1 - self.p)), 0)

    def in_primitives(self, q: Value, k: Value, v: Value, key: Value, *bias: Value) -> tuple[Value, Value]:
        """The reference form."""
        dtype = q.dtype
        q, k, v, bias = widened(q), widened(k), widened(v), tuple([widened(b) for b in bias])
        scores = self.whole.scores(q, k, *bias)
        if not k.shape[-2]:
            total = r.sum(scores, axis=-1) - math.inf
            return e.astype(Matmul()(scores, v), dtype), total
        total = r.logsumexp(scores, axis=-1)
        weights = _weights(scores, total)
        return e.astype(Matmul()(self._kept(weights, q, k, key), v), dtype), total

    def vjp(
        self,
        g: tuple[Value | None, Value | None],
        out: tuple[Value, Value],
        q: Value,
        k: Value,
        v: Value,
        key: Value,
        *bias: Value,
    ) -> tuple[Value | None, ...]:
        g_out, g_total = g
        if g_out is None and g_total is None:
            return (None,) * (4 + len(bias))
        dtype = q.dtype
        # fenced, so that what is made again is not merged with what the forward made, and kept
        known = [x for x in (g_out, g_total) if x is not None]
        q, k, v, key, *rest = Barrier(4 + len(bias)).results(q, k, v, key, *bias, *known)
        q, k, v, more = widened(q), widened(k), widened(v), [widened(b) for b in rest]
        weights = _weights(self.whole.scores(q, k, *more), out[1])
        found: Any = 0
        dv: Value | None = None
        if g_out is not None:
            wide = widened(g_out)
            dv = Matmul()(s.matrix_transpose(self._kept(weights, q, k, key)), wide)
            row = r.sum(wide * widened(out[0]), axis=-1, keepdims=True)
            found = weights * (self._kept(Matmul()(wide, s.matrix_transpose(v)), q, k, key) - row)
        if g_total is not None:
            found = weights * s.expand_dims(g_total, axis=-1) + found
        dq = Matmul()(found, k) * self.scale
        dk = Matmul()(s.matrix_transpose(found), q) * self.scale
        back = [dq, dk, dv, None, *([found] if bias else [])]
        return tuple([None if x is None else e.astype(x, dtype) for x in back])

    def cost(self, *types: Type) -> Cost:
        return self.whole.cost(*types[:3], *types[4:])


def _weights(scores: V, total: V) -> V:
    """exp(scores - total), zeros where a row may attend to nothing."""
    row = s.expand_dims(total, axis=-1)
    return e.where(e.equal(row, -math.inf), 0, e.exp(scores - row))


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
    if dropout_p == 1.0:
        return s.zeros_like(attention.results(q, k, v, *mask)[0])
    return DroppedAttention(factor, dropout_p, stream, is_causal).results(q, k, v, dropout_key, *mask)[0]


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
