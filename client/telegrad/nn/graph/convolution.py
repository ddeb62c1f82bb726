"""Graph convolutions: linear functions of a node and of the sum or mean of its neighbours."""

from __future__ import annotations

from telegrad import ops
from telegrad.creation import asarray, zeros
from telegrad.errors import ShapeError
from telegrad.ir import types
from telegrad.ir.types import DType
from telegrad.ir.value import V
from telegrad.nn import functional as F
from telegrad.nn import init
from telegrad.nn.graph.message_passing import MessagePassing, ends
from telegrad.nn.linear import Linear
from telegrad.nn.module import Module
from telegrad.ops import elementwise as e
from telegrad.ops.index import ScatterSet
from telegrad.tensor import Tensor
from telegrad.variable import Parameter, Variable


def glorot_linear(in_channels: int, out_channels: int, bias: bool, dtype: DType) -> Linear:
    """A linear layer with Xavier uniform weights and zero biases, as PyTorch Geometric has it here."""
    layer = Linear(in_channels, out_channels, bias, dtype=dtype)
    init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        init.zeros_(layer.bias)
    return layer


def checked_weight(edge_weight: Tensor, edges: int, op: str) -> Tensor:
    """The weights, once they are one for each edge."""
    if edge_weight.shape != (edges,):
        raise ShapeError(f"{op}: edge_weight must be [{edges}], one for each edge, not {edge_weight.type}")
    return edge_weight


class GCNConv(Module):
    """D^-1/2 (A + I) D^-1/2 x W^T + b, with A by target and source and D its sums by target (Kipf, Welling 2017).

    Edges may have weights. ``improved`` adds 2 I in place of I. A node with an edge to itself keeps that one's weight
    and gets no other. Without ``normalize`` it is A x W^T + b.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.improved = in_channels, out_channels, improved
        self.normalize = normalize
        self.add_self_loops = normalize if add_self_loops is None else add_self_loops
        if self.add_self_loops and not normalize:
            raise ShapeError("GCNConv: add_self_loops goes with normalize only")
        self.register_parameter("bias", Parameter(zeros((out_channels,), dtype=dtype)) if bias else None)
        self.lin = glorot_linear(in_channels, out_channels, False, dtype)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x[nodes, in], edge_index[2, edges], edge_weight[edges] -> [nodes, out]."""
        source, target = ends(x, edge_index, "GCNConv")
        nodes = x.shape[0]
        h = self.lin(x)
        weight = ops.ones_like(ops.astype(source, h.dtype)) if edge_weight is None else edge_weight
        weight = checked_weight(weight, source.shape[0], "GCNConv")
        loop: Tensor | None = None
        if self.add_self_loops:
            weight, loop = _with_loops(weight, source, target, nodes, 2.0 if self.improved else 1.0)
        if self.normalize:
            degree = ops.scatter_add(weight, target, rows=nodes)
            degree = degree if loop is None else degree + loop
            root = ops.where(degree > 0, 1 / ops.sqrt(ops.where(degree > 0, degree, 1)), 0)
            weight = weight * ops.take(root, source, axis=0) * ops.take(root, target, axis=0)
            loop = None if loop is None else loop * root * root
        messages = ops.take(h, source, axis=0) * weight.unsqueeze(1)
        out = ops.scatter_add(messages, target, rows=nodes)
        if loop is not None:
            out = out + h * loop.unsqueeze(1)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


def _with_loops(weight: V, source: V, target: V, nodes: int, fill: float) -> tuple[V, V]:
    """(the weights with those of loops at zero, each node's weight of its loop: the last given, or ``fill``)."""
    is_loop = e.equal(source, target)
    given = e.where(is_loop, source, nodes)  # other edges write a row that is cut off
    loops = ops.broadcast_to(weight.literal(fill, weight.dtype), (nodes + 1,))
    return e.where(is_loop, 0, weight), ScatterSet()(loops, given, weight)[:nodes]


class GraphConv(Module):
    """x W_root^T + the neighbours' joined features W_rel^T + b (Morris et al. 2019). Edges may have weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggr: str = "add",
        bias: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.aggr = MessagePassing(aggr).aggr
        self.lin_rel = Linear(in_channels, out_channels, bias, dtype=dtype)
        self.lin_root = Linear(in_channels, out_channels, False, dtype=dtype)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """x[nodes, in], edge_index[2, edges], edge_weight[edges] -> [nodes, out]."""
        source, target = ends(x, edge_index, "GraphConv")
        messages = ops.take(x, source, axis=0)
        if edge_weight is not None:
            messages = messages * checked_weight(edge_weight, source.shape[0], "GraphConv").unsqueeze(1)
        return self.lin_rel(F.scatter(messages, target, 0, x.shape[0], self.aggr)) + self.lin_root(x)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, aggr={self.aggr!r}"


class SAGEConv(MessagePassing):
    """The neighbours' joined features W_l^T + x W_r^T + b (Hamilton et al. 2017).

    ``project`` applies a linear layer and ReLU to the neighbours first, ``normalize`` makes each result of length 1,
    and without ``root_weight`` the node itself does not count.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggr: str = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        *,
        dtype: DType = types.float32,
    ) -> None:
        super().__init__(aggr)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.normalize, self.root_weight, self.project = normalize, root_weight, project
        if project:
            self.lin = Linear(in_channels, in_channels, bias, dtype=dtype)
        self.lin_l = Linear(in_channels, out_channels, bias, dtype=dtype)
        if root_weight:
            self.lin_r = Linear(in_channels, out_channels, False, dtype=dtype)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """x[nodes, in], edge_index[2, edges] -> [nodes, out]."""
        neighbours = F.relu(self.lin(x)) if self.project else x
        out = self.lin_l(self.propagate(edge_index, neighbours))
        if self.root_weight:
            out = out + self.lin_r(x)
        return F.normalize(out, dim=-1) if self.normalize else out

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, aggr={self.aggr!r}"


class GINConv(MessagePassing):
    """nn((1 + eps) x + the sum of the neighbours) (Xu et al. 2019); ``train_eps`` learns eps."""

    def __init__(self, nn: Module, eps: float = 0.0, train_eps: bool = False, *, dtype: DType = types.float32) -> None:
        super().__init__("add")
        start = asarray([eps], dtype=dtype)
        self.eps = Parameter(start) if train_eps else Variable(start)
        self.nn = nn

    def update(self, aggregated: Tensor, x: Tensor) -> Tensor:
        """nn((1 + eps) x + aggregated)."""
        return self.nn(aggregated + x * (self.eps + 1))
