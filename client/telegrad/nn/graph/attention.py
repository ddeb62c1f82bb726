"""Graph attention: weights of the edges that arrive at a node, by a softmax over them."""

from __future__ import annotations

import math

from telegrad import creation, ops
from telegrad.errors import GraphError, ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.graph.convolution import glorot_linear
from telegrad.nn.graph.message_passing import ends
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.variable import Parameter

Found = Tensor | tuple[Tensor, tuple[Tensor, Tensor]]


class _Attention(Module):
    """What the additive forms have in common: loops, and what becomes of the heads."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | str = "mean",
        bias: bool = True,
        residual: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        if isinstance(fill_value, str) and fill_value not in ("mean", "add", "sum"):
            raise GraphError(f"{type(self).__name__}: fill_value is a number, 'mean' or 'add', not {fill_value!r}")
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.negative_slope, self.dropout, self.add_self_loops = negative_slope, dropout, add_self_loops
        self.edge_dim, self.fill_value = edge_dim, fill_value
        total = out_channels * (heads if concat else 1)
        self.register_parameter("bias", Parameter(creation.zeros((total,), dtype=dtype)) if bias else None)
        self._build(bias, dtype)
        self.lin_edge = None if edge_dim is None else glorot_linear(edge_dim, heads * out_channels, False, dtype)
        self.res = glorot_linear(in_channels, total, False, dtype) if residual else None

    def _build(self, bias: bool, dtype: DType) -> None:
        raise NotImplementedError

    def _vectors(self, *names: str, dtype: DType) -> None:
        """Parameters with one vector for each head."""
        for name in names:
            parameter = Parameter(creation.zeros((1, self.heads, self.out_channels), dtype=dtype))
            bound = math.sqrt(6.0 / (self.heads + self.out_channels))
            self.register_parameter(name, init.uniform_(parameter, -bound, bound))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape((x.shape[0], self.heads, self.out_channels))

    def _edges(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """(from, to, features of the edges by head, which edges count or None), a loop for each node among them."""
        op = type(self).__name__
        source, target = ends(x, edge_index, op)
        if edge_attr is not None:
            edge_attr = edge_attr if edge_attr.ndim > 1 else edge_attr.unsqueeze(1)
            if self.edge_dim is None or edge_attr.shape != (source.shape[0], self.edge_dim):
                wanted = "not be given without edge_dim" if self.edge_dim is None else f"be [edges, {self.edge_dim}]"
                raise ShapeError(f"{op}: edge_attr must {wanted}, and is {edge_attr.type}")
        counts: Tensor | None = None
        if self.add_self_loops:
            is_given = ops.not_equal(source, target)  # a loop that is there already is left out
            if edge_attr is not None:
                edge_attr = ops.concat((edge_attr, self._loops(edge_attr, target, is_given, x.shape[0])), axis=0)
            nodes = creation.arange(x.shape[0], dtype=source.dtype)
            counts = ops.concat((is_given, ops.equal(nodes, nodes)), axis=0)
            source, target = ops.concat((source, nodes), axis=0), ops.concat((target, nodes), axis=0)
        features = None if edge_attr is None or self.lin_edge is None else self._heads(self.lin_edge(edge_attr))
        return source, target, features, counts

    def _loops(self, edge_attr: Tensor, target: Tensor, is_given: Tensor, nodes: int) -> Tensor:
        """The features of each node's loop: a number, or what arrives there joined."""
        if not isinstance(self.fill_value, str):
            return creation.full((nodes, edge_attr.shape[1]), self.fill_value, dtype=edge_attr.dtype)
        kept = ops.astype(is_given, edge_attr.dtype)
        total = ops.scatter_add(edge_attr * kept.unsqueeze(1), target, rows=nodes)
        if self.fill_value != "mean":
            return total
        return total / ops.maximum(ops.scatter_add(kept, target, rows=nodes), 1).unsqueeze(1)

    def _weights(self, scores: Tensor, target: Tensor, counts: Tensor | None, nodes: int) -> Tensor:
        """The softmax of scores[edges, heads] over the edges that arrive at a node."""
        if counts is not None:
            scores = ops.where(counts.unsqueeze(1), scores, scores.literal(-math.inf, scores.dtype))
        return F.dropout(F.scatter_softmax(scores, target, nodes), self.dropout, self.training)

    def _joined(
        self, x: Tensor, values: Tensor, weights: Tensor, source: Tensor, target: Tensor, wants_weights: bool
    ) -> Found:
        """The sum of values[edges, heads, out] by their weights at each node, the heads side by side or their mean."""
        out = ops.scatter_add(values * weights.unsqueeze(2), target, rows=x.shape[0])
        out = out.flatten(1) if self.concat else out.mean(axis=1)
        out = out if self.res is None else out + self.res(x)
        out = out if self.bias is None else out + self.bias
        return (out, (ops.stack((source, target)), weights)) if wants_weights else out

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}"


class GATConv(_Attention):
    """Attention by leaky_relu(a_src . W x_j + a_dst . W x_i + a_edge . W_edge e) (Veličković et al. 2018).

    ``heads`` side by side, or their mean without ``concat``. Each node has a loop, whose features are ``fill_value`` or
    the "mean" (or sum, "add") of the edges that arrive; a loop in edge_index is left out then. With
    ``return_attention_weights`` (the result, (the edges, loops behind, and weights[edges, heads])).
    """

    def _build(self, bias: bool, dtype: DType) -> None:
        names = ("att_src", "att_dst") if self.edge_dim is None else ("att_src", "att_dst", "att_edge")
        self._vectors(*names, dtype=dtype)
        if self.edge_dim is None:
            self.register_parameter("att_edge", None)
        self.register_parameter("bias", self._parameters.pop("bias"))  # behind the others, as in PyTorch Geometric
        self.lin = glorot_linear(self.in_channels, self.heads * self.out_channels, False, dtype)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Found:
        """x[nodes, in], edge_index[2, edges], edge_attr[edges, edge_dim] -> [nodes, heads * out]."""
        source, target, edges, counts = self._edges(x, edge_index, edge_attr)
        h = self._heads(self.lin(x))
        from_source, from_target = (h * self.att_src).sum(axis=-1), (h * self.att_dst).sum(axis=-1)
        scores = ops.take(from_source, source, axis=0) + ops.take(from_target, target, axis=0)
        if edges is not None:
            scores = scores + (edges * self.att_edge).sum(axis=-1)
        weights = self._weights(F.leaky_relu(scores, self.negative_slope), target, counts, x.shape[0])
        return self._joined(x, ops.take(h, source, axis=0), weights, source, target, return_attention_weights)


class GATv2Conv(_Attention):
    """Attention by a . leaky_relu(W_l x_j + W_r x_i + W_edge e), whose order depends on x_i (Brody et al. 2022).

    Otherwise as `GATConv`. With ``share_weights`` W_r is W_l.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | str = "mean",
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
        *,
        dtype: DType = types.float32,
    ) -> None:
        self.share_weights = share_weights  # read while the module is built
        super().__init__(
            in_channels, out_channels, heads, concat, negative_slope, dropout, add_self_loops, edge_dim, fill_value,
            bias, residual, dtype=dtype,
        )  # fmt: skip

    def _build(self, bias: bool, dtype: DType) -> None:
        self._vectors("att", dtype=dtype)
        self.register_parameter("bias", self._parameters.pop("bias"))
        width = self.heads * self.out_channels
        self.lin_l = glorot_linear(self.in_channels, width, bias, dtype)
        self.lin_r = self.lin_l if self.share_weights else glorot_linear(self.in_channels, width, bias, dtype)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Found:
        """x[nodes, in], edge_index[2, edges], edge_attr[edges, edge_dim] -> [nodes, heads * out]."""
        source, target, edges, counts = self._edges(x, edge_index, edge_attr)
        left = self._heads(self.lin_l(x))
        right = left if self.share_weights else self._heads(self.lin_r(x))
        values = ops.take(left, source, axis=0)
        sums = values + ops.take(right, target, axis=0)
        sums = sums if edges is None else sums + edges
        scores = (F.leaky_relu(sums, self.negative_slope) * self.att).sum(axis=-1)
        weights = self._weights(scores, target, counts, x.shape[0])
        return self._joined(x, values, weights, source, target, return_attention_weights)


class TransformerConv(Module):
    """Attention by (W_q x_i) . (W_k x_j + W_edge e) / sqrt(out) of W_v x_j + W_edge e, plus W_skip x (Shi et al. 2021).

    ``beta`` weighs the two sums by a gate that is learnt. No loops are added: the node itself comes in by W_skip.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.dropout, self.edge_dim, self.root_weight = dropout, edge_dim, root_weight
        width, total = heads * out_channels, out_channels * (heads if concat else 1)
        self.lin_key = Linear(in_channels, width, bias, dtype=dtype)
        self.lin_query = Linear(in_channels, width, bias, dtype=dtype)
        self.lin_value = Linear(in_channels, width, bias, dtype=dtype)
        self.lin_edge = None if edge_dim is None else Linear(edge_dim, width, False, dtype=dtype)
        self.lin_skip = Linear(in_channels, total, bias, dtype=dtype)
        self.lin_beta = Linear(3 * total, 1, False, dtype=dtype) if beta and root_weight else None

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Found:
        """x[nodes, in], edge_index[2, edges], edge_attr[edges, edge_dim] -> [nodes, heads * out]."""
        source, target = ends(x, edge_index, "TransformerConv")
        wanted = None if self.edge_dim is None else (source.shape[0], self.edge_dim)
        if (None if edge_attr is None else edge_attr.shape) != wanted:
            raise ShapeError(
                f"TransformerConv: with edge_dim={self.edge_dim} edge_attr must be {wanted and list(wanted)},"
                f" not {edge_attr if edge_attr is None else edge_attr.type}"
            )
        shape = (-1, self.heads, self.out_channels)
        query = ops.take(self.lin_query(x).reshape(shape), target, axis=0)
        key, value = (ops.take(f(x).reshape(shape), source, axis=0) for f in (self.lin_key, self.lin_value))
        if self.lin_edge is not None:
            edges = self.lin_edge(edge_attr).reshape(shape)
            key, value = key + edges, value + edges
        scores = (query * key).sum(axis=-1) * (1 / math.sqrt(self.out_channels))
        weights = F.scatter_softmax(scores, target, x.shape[0])
        dropped = F.dropout(weights, self.dropout, self.training)
        out = ops.scatter_add(value * dropped.unsqueeze(2), target, rows=x.shape[0])
        out = out.flatten(1) if self.concat else out.mean(axis=1)
        if self.root_weight:
            own = self.lin_skip(x)
            if self.lin_beta is None:
                out = out + own
            else:
                gate = F.sigmoid(self.lin_beta(ops.concat((out, own, out - own), axis=1)))
                out = gate * own + (1 - gate) * out
        return (out, (edge_index, weights)) if return_attention_weights else out

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, heads={self.heads}"
