"""A function ready to be called in a session."""

from __future__ import annotations

from collections.abc import Sequence

from telegrad.ir.graph import Function
from telegrad.lazy import Extract
from telegrad.wire.codec import encode_function, function_id


class Prepared:
    """A function ready to be called in a session: its id, bytes, and where its inputs come from."""

    def __init__(self, extracted: Extract, updates: Sequence[tuple[int, int]]) -> None:
        self.data = encode_function(Function(extracted.graph, tuple(updates)))
        self.id = function_id(self.data)
        self.ops = frozenset(_op_names(extracted))
        self.lines = extracted.lines
        self.sources = extracted.sources
        self.input_types = extracted.graph.input_types


def _op_names(extracted: Extract) -> set[str]:
    names: set[str] = set()
    graphs = [extracted.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.nodes:
            names.add(node.op.name)
            graphs.extend(node.regions)
    return names
