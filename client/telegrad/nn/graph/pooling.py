"""One row for each graph, from the rows of its nodes."""

from __future__ import annotations

from telegrad.errors import GraphError
from telegrad.ops.segments import scatter
from telegrad.tensor import Tensor


def _pool(x: Tensor, batch: Tensor | None, size: int | None, reduce: str) -> Tensor:
    if batch is None:
        join = {"sum": x.sum, "mean": x.mean, "max": x.max}[reduce]
        return join(axis=0, keepdims=True)
    if size is None:
        raise GraphError("global pooling: say size, the number of graphs; shapes are known before the data")
    return scatter(x, batch, 0, size, reduce)


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The sums over each graph's nodes: x[nodes, ...], batch[nodes] -> [size, ...]; one graph if batch is None."""
    return _pool(x, batch, size, "sum")


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The means over each graph's nodes: x[nodes, ...], batch[nodes] -> [size, ...]; one graph if batch is None."""
    return _pool(x, batch, size, "mean")


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The largest of each graph's nodes: x[nodes, ...], batch[nodes] -> [size, ...]; one graph if batch is None."""
    return _pool(x, batch, size, "max")
