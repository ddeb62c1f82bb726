"""Layers on graphs, with PyTorch Geometric's names, arguments and state keys.

A graph is x[nodes, features] and edge_index[2, edges] of integers: row 0 says where an edge comes from, row 1 where it
goes, and messages flow along it. For edges that have no direction both are listed. Several graphs are one graph without
edges between them, whose nodes know their graph by batch[nodes]: see `batch_graphs`.
"""

from telegrad.nn.graph.attention import GATConv, GATv2Conv, TransformerConv
from telegrad.nn.graph.batching import GraphBatch, batch_graphs
from telegrad.nn.graph.convolution import GCNConv, GINConv, GraphConv, SAGEConv
from telegrad.nn.graph.message_passing import MPNN, MessagePassing
from telegrad.nn.graph.pooling import global_add_pool, global_max_pool, global_mean_pool

__all__ = [
    "MPNN", "GATConv", "GATv2Conv", "GCNConv", "GINConv", "GraphBatch", "GraphConv", "MessagePassing", "SAGEConv",
    "TransformerConv", "batch_graphs", "global_add_pool", "global_max_pool", "global_mean_pool",
]  # fmt: skip
