"""A function ready to be called in a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from telegrad.ir.graph import Function, Replication
from telegrad.lazy import Extract, Line
from telegrad.wire.codec import encode_function, function_id, nodes_in_order


class Prepared:
    """A function ready to be called in a session: its id, bytes, and where its inputs come from."""

    def __init__(
        self, extracted: Extract, updates: Sequence[tuple[int, int]], replication: Replication | None = None
    ) -> None:
        self.data = encode_function(Function(extracted.graph, tuple(updates), replication))
        self.id = function_id(self.data)
        nodes = nodes_in_order(extracted.graph)
        if replication is not None and replication.rest is not None:
            nodes += nodes_in_order(replication.rest)
        self.lines = tuple([cast("Line | None", node.origin) for node in nodes])
        self.ops = frozenset([node.op.name for node in nodes])
        self.sources = extracted.sources
        self.input_types = extracted.graph.input_types
        self.output_types = extracted.graph.output_types
        self.updates = len(updates)
