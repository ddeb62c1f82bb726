"""Messages along edges, summed up where they arrive: what the layers have in common, and one that is nothing else."""

from __future__ import annotations

from telegrad import ops
from telegrad.errors import DTypeError, GraphError, ShapeError
from telegrad.nn.module import Module
from telegrad.ops.segments import REDUCTIONS, scatter
from telegrad.tensor import Tensor


def ends(x: Tensor, edge_index: Tensor, op: str) -> tuple[Tensor, Tensor]:
    """(where each edge comes from, where it goes), once x and the edges are a graph."""
    if x.ndim != 2:
        raise ShapeError(f"{op}({x.type}): takes nodes as [nodes, features]")
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ShapeError(f"{op}: edge_index must be [2, edges], not {edge_index.type}")
    if edge_index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{op}: edge_index must hold integers, not {edge_index.type}")
    return edge_index[0], edge_index[1]


class MessagePassing(Module):
    """A layer by what it overrides: ``message`` for each edge, ``update`` for each node (Gilmer et al. 2017).

    ::

        class Difference(nn.MessagePassing):
            def message(self, x_i, x_j, edge_attr):
                return (x_i - x_j) ** 2

        out = Difference(aggr="max")(x, edge_index)

    Messages are joined where they arrive by ``aggr``: "add" ("sum"), "mean", "max" or "min"; none are zeros.
    """

    def __init__(self, aggr: str = "add") -> None:
        super().__init__()
        if aggr not in REDUCTIONS:
            raise GraphError(f"{type(self).__name__}: aggr is one of {', '.join(REDUCTIONS)}, not {aggr!r}")
        self.aggr = aggr

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """The message of each edge, from x_j[edges, features] where it comes from to x_i where it goes."""
        return x_j

    def update(self, aggregated: Tensor, x: Tensor) -> Tensor:
        """The result at each node, from what arrived there and the node itself."""
        return aggregated

    def propagate(self, edge_index: Tensor, x: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """One round: message along each edge, join, update."""
        source, target = ends(x, edge_index, type(self).__name__)
        if edge_attr is not None and edge_attr.shape[:1] != source.shape:
            raise ShapeError(
                f"{type(self).__name__}: {source.shape[0]} edges need as many rows of edge_attr, not {edge_attr.type}"
            )
        messages = self.message(ops.take(x, target, axis=0), ops.take(x, source, axis=0), edge_attr)
        return self.update(scatter(messages, target, 0, x.shape[0], self.aggr), x)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """x[nodes, features] and edge_index[2, edges] -> [nodes, ...]."""
        return self.propagate(edge_index, x, edge_attr)

    def extra_repr(self) -> str:
        return f"aggr={self.aggr!r}"


class MPNN(MessagePassing):
    """Messages and updates by modules: message_nn([x_i, x_j, edge_attr]) joined, then update_nn([x, joined]).

    Without ``update_nn`` the joined messages are the result. Degrees are divided out by ``aggr`` "mean".
    """

    def __init__(self, message_nn: Module, update_nn: Module | None = None, aggr: str = "add") -> None:
        super().__init__(aggr)
        self.message_nn = message_nn
        self.update_nn = update_nn

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """message_nn of both ends' features and the edge's, side by side."""
        parts = [x_i, x_j]
        if edge_attr is not None:
            parts.append(edge_attr if edge_attr.ndim > 1 else edge_attr.unsqueeze(1))
        return self.message_nn(ops.concat(parts, axis=1))

    def update(self, aggregated: Tensor, x: Tensor) -> Tensor:
        """update_nn of the node's features and what arrived, side by side."""
        return aggregated if self.update_nn is None else self.update_nn(ops.concat((x, aggregated), axis=1))
