"""Transposes of products: (x y)^T becomes y^T x^T, whose transposes cost nothing. Rounding: BLAS adds in another order.

BLAS reads a transposed operand as fast as another one, but what comes after a transposed product (a sum with another
gradient, an optimizer's update) walks through memory across the rows. The gradient of a weight that its layer uses
transposed, as PyTorch's do, is such a product.

A step has the same bits on one worker and in parts on several. So marks, which only parts have, are looked through, and
this pass comes first: those after it see less of the same graph where marks stand in the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from telegrad.ir.graph import Graph
from telegrad.ir.op import Op
from telegrad.ir.value import Node, Value, apply
from telegrad.ops.linalg import Matmul
from telegrad.ops.parts import MARKS
from telegrad.ops.shape import Permute

from telegrad_server.compiler.rebuild import rewritten


def transposed_products(graph: Graph) -> Graph:
    """Let products come out as they are used, where the transpose is all that uses them."""
    if not any(_is_transpose(node.op) for node in graph.nodes):
        return graph
    uses = _uses(graph)

    def rule(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not _is_transpose(node.op) or uses[id(_unmarked(node.inputs[0]).node)] != 1:
            return None
        product = _unmarked(inputs[0]).node
        if not isinstance(product.op, Matmul):
            return None
        x, y = product.inputs
        turned = (_transpose(y, node.origin), _transpose(x, node.origin))
        return (_marked(apply(product.op, turned, origin=product.origin)[0], like=inputs[0]),)

    return rewritten(graph, rule)


def _uses(graph: Graph) -> Counter[int]:
    """How often each node is used, by id, as if there were no marks: what only says where to be is no use."""
    uses = Counter([id(_unmarked(v).node) for v in graph.outputs])
    for node in reversed(graph.nodes):
        if id(node) in uses:
            uses.update([id(_unmarked(v).node) for v in node.inputs])
    return uses


def _unmarked(x: Value) -> Value:
    while isinstance(x.node.op, MARKS):
        x = x.node.inputs[0]
    return x


def _marked(x: Value, *, like: Value) -> Value:
    """x under the marks that another value has."""
    marks: list[Node] = []
    while isinstance(like.node.op, MARKS):
        marks.append(like.node)
        like = like.node.inputs[0]
    for mark in reversed(marks):
        (x,) = apply(mark.op, (x, *mark.inputs[1:]), origin=mark.origin)
    return x


def _transpose(x: Value, origin: object) -> Value:
    """The last two axes swapped; of what is a transpose already, its operand."""
    if _is_transpose(x.node.op):
        return x.node.inputs[0]
    return apply(Permute((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)), (x,), origin=origin)[0]


def _is_transpose(op: Op) -> bool:
    if not isinstance(op, Permute) or len(op.axes) < 2:
        return False
    n = len(op.axes)
    return op.axes == (*range(n - 2), n - 1, n - 2)
