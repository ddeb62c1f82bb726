"""Several graphs as one, filled up to sizes that stay the same, so that a function is traced once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad.errors import ShapeError

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class GraphBatch:
    """Graphs without edges between them, as NumPy arrays; as an argument of a function its fields are tensors."""

    x: Array
    """[nodes, features]."""
    edge_index: Array
    """[2, edges], numbered through."""
    edge_attr: Array | None
    """[edges, ...], if the graphs have it."""
    batch: Array
    """The graph of each node, [nodes]; filling belongs to one graph more."""
    is_graph: Array
    """True for each graph, False for filling: [graphs]. Its length is the size to pool to."""


def batch_graphs(
    graphs: Sequence[tuple[npt.ArrayLike, ...]], nodes: int | None = None, edges: int | None = None
) -> GraphBatch:
    """Graphs (x, edge_index) or (x, edge_index, edge_attr) as one, filled up to ``nodes`` and ``edges`` if given.

    Filling is nodes of zeros in a graph of their own, and loops on the first of them, so no graph hears of it; there is
    always one such node where there is filling at all. ShapeError if the graphs are larger than that.
    """
    if not graphs:
        raise ShapeError("batch_graphs: takes one graph at least")
    parts = [[np.asarray(part) for part in graph] for graph in graphs]
    counts = [part[0].shape[0] for part in parts]
    offsets = np.cumsum([0, *counts])
    x = np.concatenate([part[0] for part in parts])
    index = np.concatenate([p[1].reshape(2, -1).astype(np.int64) + o for p, o in zip(parts, offsets)], axis=1)
    attributes = np.concatenate([part[2] for part in parts]) if len(parts[0]) > 2 else None
    batch = np.repeat(np.arange(len(parts)), counts)
    if nodes is None and edges is None:
        return GraphBatch(x, index, attributes, batch, np.ones(len(parts), bool))
    wanted_nodes, wanted_edges = nodes or len(x) + 1, edges or index.shape[1]
    more_nodes, more_edges = wanted_nodes - len(x), wanted_edges - index.shape[1]
    if more_nodes < 1 or more_edges < 0:
        raise ShapeError(
            f"batch_graphs: {len(x)} nodes and {index.shape[1]} edges do not fit into {wanted_nodes} nodes, one of them"
            f" filling, and {wanted_edges} edges"
        )
    loops = np.full((2, more_edges), len(x))
    return GraphBatch(
        np.concatenate([x, np.zeros((more_nodes, *x.shape[1:]), x.dtype)]),
        np.concatenate([index, loops], axis=1),
        None
        if attributes is None
        else np.concatenate([attributes, np.zeros((more_edges, *attributes.shape[1:]), attributes.dtype)]),
        np.concatenate([batch, np.full(more_nodes, len(parts))]),
        np.arange(len(parts) + 1) < len(parts),
    )
