"""Functions (graphs with updates) to bytes and back: one generic encoder for all ops.

Decoding trusts nothing: the columns are checked as NumPy arrays before any object is made, then ops are
built from their attributes and every type is inferred again.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from telegrad.errors import GraphError, TelegradError
from telegrad.ir.graph import Function, Graph, Input, Replication
from telegrad.ir.op import Op, identity, make_op, result_types
from telegrad.ir.value import Node, Origin, Value
from telegrad.ir.verify import verify_replication
from telegrad.ops import registry
from telegrad.wire.attributes import decode_attributes, encode_attributes
from telegrad.wire.v1 import graph_pb2 as pb

VERSION = 1
MAX_NODES = 1_000_000

Column = npt.NDArray[np.uint32]


def function_id(data: bytes) -> bytes:
    """The id of a function: the SHA-256 of its bytes."""
    return hashlib.sha256(data).digest()


# ---- to bytes


class _Columns:
    """The columns of a graph while it is written, region by region, inner ones first."""

    def __init__(self) -> None:
        self.op_names: dict[str, int] = {}
        self.kinds: dict[Hashable, int] = {}
        self.kind_names = array("I")
        self.attributes: list[bytes] = []
        self.nodes = array("I")
        self.operand_counts = array("I")
        self.operands = array("I")
        self.operand_outputs = array("I")
        self.region_sizes = array("I")
        self.result_counts = array("I")
        self.results = array("I")
        self.result_outputs = array("I")
        self.region_owners: list[tuple[int, int]] = []

    def kind(self, op: Op) -> int:
        key = identity(op)
        number = self.kinds.get(key)
        if number is None:
            number = self.kinds[key] = len(self.kinds)
            self.kind_names.append(self.op_names.setdefault(op.name, len(self.op_names)))
            self.attributes.append(encode_attributes(op))
        return number

    def region(self, graph: Graph) -> int:
        """Write one graph after the regions that its nodes own; returns its number."""
        owned = [(i, [self.region(r) for r in node.regions]) for i, node in enumerate(graph.nodes) if node.regions]
        first = len(self.nodes)
        self.region_owners += [(first + i, r) for i, regions in owned for r in regions]
        numbers = {id(node): i for i, node in enumerate(graph.nodes)}
        kinds = {id(op): self.kind(op) for op in {id(node.op): node.op for node in graph.nodes}.values()}
        self.nodes.extend([kinds[id(node.op)] for node in graph.nodes])
        self.operand_counts.extend([len(node.inputs) for node in graph.nodes])
        self.operands.extend([numbers[id(value.node)] for node in graph.nodes for value in node.inputs])
        self.operand_outputs.extend([value.index for node in graph.nodes for value in node.inputs])
        self.region_sizes.append(len(graph.nodes))
        self.result_counts.append(len(graph.outputs))
        for value in graph.outputs:
            self.results.append(numbers[id(value.node)])
            self.result_outputs.append(value.index)
        return len(self.region_sizes) - 1


def _u32(values: Sequence[int] | array[int]) -> bytes:
    return np.asarray(values, dtype="<u4").tobytes()


def _offsets(counts: Sequence[int] | array[int]) -> bytes:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.uint64))]).astype("<u4").tobytes()


def encode_function(function: Function) -> bytes:
    """The function's bytes, whose SHA-256 is its id. Equal functions give equal bytes."""
    message = pb.Function(
        graph=_encode_graph(function.graph), updates=_u32([x for pair in function.updates for x in pair])
    )
    how = function.replication
    if how is not None:
        message.replication.replicas, message.replication.rows = how.replicas, how.rows
        message.replication.split_inputs = _u32(how.split_inputs)
        message.replication.row_outputs = _u32(how.row_outputs)
        message.replication.shards = how.shards
        if how.rest is not None:
            message.replication.rest.CopyFrom(_encode_graph(how.rest))
    return message.SerializeToString(deterministic=True)


def _encode_graph(graph: Graph) -> pb.Graph:
    c = _Columns()
    c.region(graph)
    return pb.Graph(
        version=VERSION,
        op_names=list(c.op_names),
        kinds=_u32(c.kind_names),
        attribute_offsets=_offsets([len(a) for a in c.attributes]),
        attributes=b"".join(c.attributes),
        nodes=_u32(c.nodes),
        operand_offsets=_offsets(c.operand_counts),
        operands=_u32(c.operands),
        operand_outputs=_u32(c.operand_outputs) if any(c.operand_outputs) else b"",
        region_offsets=_offsets(c.region_sizes),
        result_offsets=_offsets(c.result_counts),
        results=_u32(c.results),
        result_outputs=_u32(c.result_outputs) if any(c.result_outputs) else b"",
        region_owners=_u32([x for pair in c.region_owners for x in pair]),
    )


def nodes_in_order(graph: Graph) -> list[Node]:
    """The nodes of the graph and its regions in the order in which they are written: each one's number is its place."""
    found = [node for owner in graph.nodes for region in owner.regions for node in nodes_in_order(region)]
    return [*found, *graph.nodes]


# ---- from bytes


def decode_function(data: bytes, *, max_nodes: int = MAX_NODES) -> Function:
    """The function in ``data``; node k of the columns, regions included, gets ``origin=Origin(k)``.

    Those of a data-parallel function's second graph are numbered on from the first's.

    Raises GraphError or a subclass, with the reason and the node, for anything that is not a legal function.
    """
    message = pb.Function()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise GraphError("the function's bytes are no Function message", reason="MALFORMED_MESSAGE") from error
    graph, nodes = _decode_graph(message.graph, max_nodes, first=0)
    how: Replication | None = None
    if message.HasField("replication"):
        r = message.replication
        rest = _decode_graph(r.rest, max_nodes - nodes, first=nodes)[0] if r.HasField("rest") else None
        split, rows = _column(r.split_inputs, "split_inputs"), _column(r.row_outputs, "row_outputs")
        how = Replication(r.replicas, r.rows, tuple(split.tolist()), tuple(rows.tolist()), rest, r.shards)
    function = Function(graph, _updates(_column(message.updates, "updates"), graph), how)
    if how is not None:
        verify_replication(function, how)
    return function


def _decode_graph(g: pb.Graph, max_nodes: int, *, first: int) -> tuple[Graph, int]:
    """The graph, whose nodes are numbered from ``first`` on, and how many nodes it has."""
    if g.version != VERSION:
        raise GraphError(f"graph encoding {g.version} is not known here; this side speaks {VERSION}")
    columns = _checked(g, max_nodes)
    return _build(columns, _ops(g), first), len(columns["nodes"])


def is_replicated(data: bytes) -> bool:
    """Whether the function in ``data`` is data-parallel, without looking at its graph. GraphError as below."""
    return _function_message(data).HasField("replication")


def op_names(data: bytes) -> frozenset[str]:
    """The names of the ops in the function in ``data``, regions included. GraphError as below."""
    return frozenset(_function_message(data).graph.op_names)


def _function_message(data: bytes) -> pb.Function:
    message = pb.Function()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise GraphError("the function's bytes are no Function message", reason="MALFORMED_MESSAGE") from error
    return message


def updated_inputs(data: bytes) -> tuple[int, ...]:
    """Which inputs the function in ``data`` updates, without looking at its graph. GraphError if it is no function."""
    message = _function_message(data)
    return tuple(_column(message.updates, "updates")[::2].tolist())


def _column(data: bytes, name: str) -> Column:
    if len(data) % 4:
        raise GraphError(f"column {name} is not made of 32-bit numbers", reason="GRAPH_COLUMNS")
    return np.frombuffer(data, dtype="<u4")


def _offset_column(data: bytes, name: str, *, entries: int, end: int) -> Column:
    column = _column(data, name)
    if len(column) != entries + 1 or column[0] != 0 or column[-1] != end or bool(np.any(column[1:] < column[:-1])):
        raise GraphError(
            f"column {name} must hold {entries + 1} rising offsets from 0 to {end}", reason="GRAPH_COLUMNS"
        )
    return column


def _checked(g: pb.Graph, max_nodes: int) -> dict[str, Any]:
    """The columns as arrays, with every number in its range. Cost: a few NumPy passes."""
    nodes = _column(g.nodes, "nodes")
    if len(nodes) > max_nodes:
        raise GraphError(f"the graph has {len(nodes)} nodes; at most {max_nodes} are taken", reason="GRAPH_SIZE")
    kinds, operands, results = _column(g.kinds, "kinds"), _column(g.operands, "operands"), _column(g.results, "results")
    regions = len(g.region_offsets) // 4 - 1
    if not 1 <= regions <= 10_000:
        raise GraphError(f"the graph has {regions} regions; 1 to 10000 are taken", reason="GRAPH_COLUMNS")
    region_offsets = _offset_column(g.region_offsets, "region_offsets", entries=regions, end=len(nodes))
    operand_offsets = _offset_column(g.operand_offsets, "operand_offsets", entries=len(nodes), end=len(operands))
    result_offsets = _offset_column(g.result_offsets, "result_offsets", entries=regions, end=len(results))
    if len(nodes) and int(nodes.max()) >= len(kinds):
        raise GraphError("a node names a kind that is not there", reason="GRAPH_DANGLING")

    counts = np.diff(operand_offsets)
    region_of = np.repeat(np.arange(regions), np.diff(region_offsets))
    own = np.arange(len(nodes), dtype=np.int64) - region_offsets[region_of].astype(np.int64)
    late = np.flatnonzero(operands.astype(np.int64) >= np.repeat(own, counts))
    if len(late):
        node = int(np.searchsorted(operand_offsets, late[0], side="right")) - 1
        raise GraphError(f"node {node} has an operand that does not stand before it", reason="GRAPH_FORWARD_REF")
    sizes = np.diff(region_offsets).astype(np.int64)
    if bool(np.any(results.astype(np.int64) >= np.repeat(sizes, np.diff(result_offsets)))):
        raise GraphError("a result names a node that is not there", reason="GRAPH_DANGLING")

    outputs = {}
    for name, data, like in (
        ("operand_outputs", g.operand_outputs, operands),
        ("result_outputs", g.result_outputs, results),
    ):
        column = _column(data, name)
        if len(column) not in (0, len(like)):
            raise GraphError(f"column {name} must be empty or as long as its values", reason="GRAPH_COLUMNS")
        outputs[name] = column if len(column) else np.zeros(len(like), dtype=np.uint32)

    owners = _column(g.region_owners, "region_owners")
    if len(owners) % 2:
        raise GraphError("column region_owners must hold pairs", reason="GRAPH_COLUMNS")
    pairs = owners.reshape(-1, 2)
    seen: set[int] = set()
    for node, region in pairs.tolist():
        if node >= len(nodes) or region >= regions - 1 or region >= region_of[node] or region in seen:
            raise GraphError(f"node {node} cannot own region {region}", reason="REGION_INVALID")
        seen.add(region)
    if len(seen) != regions - 1:
        raise GraphError("a region has no owner", reason="REGION_INVALID")
    return {
        "nodes": nodes.tolist(),
        "operand_offsets": operand_offsets.tolist(),
        "operands": operands.tolist(),
        "region_offsets": region_offsets.tolist(),
        "result_offsets": result_offsets.tolist(),
        "results": results.tolist(),
        "owners": pairs.tolist(),
        **{name: column.tolist() for name, column in outputs.items()},
    }


def _ops(g: pb.Graph) -> list[Op]:
    kinds = _column(g.kinds, "kinds")
    offsets = _offset_column(g.attribute_offsets, "attribute_offsets", entries=len(kinds), end=len(g.attributes))
    names = list(g.op_names)
    if len(kinds) and int(kinds.max()) >= len(names):
        raise GraphError("a kind names an op that is not there", reason="GRAPH_DANGLING")
    registry()  # so that each name is known that can be
    ops: list[Op] = []
    for i, name in enumerate(kinds.tolist()):
        attributes = decode_attributes(g.attributes[offsets[i] : offsets[i + 1]])
        ops.append(make_op(names[name], attributes))
    return ops


def _build(c: dict[str, Any], ops: list[Op], number: int) -> Graph:
    owned: dict[int, list[int]] = {}
    for node, region in c["owners"]:
        owned.setdefault(node, []).append(region)
    graphs: list[Graph] = []
    region_offsets: list[int] = c["region_offsets"]
    last = len(region_offsets) - 2
    for region in range(last + 1):
        first = region_offsets[region]
        nodes = _region_nodes(c, ops, range(first, region_offsets[region + 1]), owned, graphs, number)
        inputs = 0
        while inputs < len(nodes) and isinstance(nodes[inputs].op, Input):
            inputs += 1
        if any(isinstance(node.op, Input) for node in nodes[inputs:]):
            raise GraphError("inputs must be the first nodes of their region", reason="GRAPH_INVALID")
        span = slice(c["result_offsets"][region], c["result_offsets"][region + 1])
        outputs = tuple(_value(nodes, i, k) for i, k in zip(c["results"][span], c["result_outputs"][span], strict=True))
        graphs.append(Graph(tuple(Value(node) for node in nodes[:inputs]), outputs, tuple(nodes)))
    return graphs[last]


def _value(nodes: list[Node], number: int, output: int) -> Value:
    node = nodes[number]
    if output >= len(node.types):
        raise GraphError(f"node {number} ({node.op.name}) has no output {output}", reason="GRAPH_DANGLING")
    return Value(node, output)


def _region_nodes(
    c: dict[str, Any], ops: list[Op], span: range, owned: dict[int, list[int]], graphs: list[Graph], number: int
) -> list[Node]:
    """The nodes of one region, each inferred from the types of its operands."""
    nodes: list[Node] = []
    kinds, offsets, operands, outputs = c["nodes"], c["operand_offsets"], c["operands"], c["operand_outputs"]
    for k in span:
        op = ops[kinds[k]]
        inputs = tuple([_value(nodes, operands[i], outputs[i]) for i in range(offsets[k], offsets[k + 1])])
        regions = tuple(graphs[r] for r in owned[k]) if k in owned else ()
        try:
            types = result_types(op, tuple([v.type for v in inputs]), regions)
        except TelegradError as error:
            error.details.setdefault("node", number + k)
            error.details.setdefault("op", op.name)
            raise
        nodes.append(Node(op, inputs, types, regions, Origin(number + k)))
    return nodes


def _updates(column: Column, graph: Graph) -> tuple[tuple[int, int], ...]:
    if len(column) % 2:
        raise GraphError("column updates must hold pairs", reason="GRAPH_COLUMNS")
    pairs = tuple((int(i), int(j)) for i, j in column.reshape(-1, 2))
    if len({i for i, _ in pairs}) != len(pairs):
        raise GraphError("a variable is updated twice", reason="GRAPH_INVALID")
    for i, j in pairs:
        if i >= len(graph.inputs) or j >= len(graph.outputs):
            raise GraphError(f"update ({i}, {j}) names an input or result that is not there", reason="GRAPH_DANGLING")
        if graph.inputs[i].type != graph.outputs[j].type:
            raise GraphError(
                f"a variable of type {graph.inputs[i].type} cannot become {graph.outputs[j].type}",
                reason="SHAPE_INVALID",
            )
    return pairs
