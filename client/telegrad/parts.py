"""``tg.on``: ops on another worker of the session's cluster; ``tg.pipeline``: a batch in parts, so that all work.

The client only marks values (`telegrad.ops.parts`). Which node runs where follows from its operands, and it is the home
worker of the session that finds out, cuts the graph and moves the tensors (docs/parts.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec
from weakref import WeakSet

from telegrad import context
from telegrad.errors import GraphError, ShapeError
from telegrad.ir.graph import Input
from telegrad.ir.op import Op
from telegrad.ir.value import Node
from telegrad.lazy import Handle, Leaf, Version
from telegrad.nest import flatten, unflatten
from telegrad.ops.control import Gradient
from telegrad.ops.parts import MAX_MICRO_BATCHES, MAX_WORKERS, MicroBatch, MoveTo
from telegrad.ops.shape import Concat
from telegrad.region import as_tensor
from telegrad.tensor import Tensor
from telegrad.variable import Variable

P = ParamSpec("P")


@contextmanager
def on(worker: int | str) -> Generator[None, None, None]:
    """Ops inside the ``with`` run on this worker of the session's cluster: ``"worker:1"``, or 1; 0 is the home.

    Operands that are elsewhere move there, from worker to worker. Variables made inside live there, and so does the
    state that optimisers keep for them. Outside of the ``with``, ops run where their operands are. On a server that is
    one worker everything runs there. Raises GraphError for what is no worker; whether the cluster has so many shows
    when something is run.

    ::

        with tg.on("worker:1"):
            head = nn.Linear(1024, 10)
        out = head(body(x))  # the head runs on worker 1
    """
    token = context.ON.set(On(_number(worker)))
    try:
        yield
    finally:
        context.ON.reset(token)


def beside(variable: Variable) -> AbstractContextManager[None]:
    """The context in which variables live with this one, and ops run there."""
    return nullcontext() if variable.worker is None else on(variable.worker)


def _number(worker: int | str) -> int:
    if isinstance(worker, str):
        found = re.fullmatch(r"worker:(\d{1,4})", worker)
        number = int(found[1]) if found else -1
    else:
        number = worker if type(worker) is int else -1
    if not 0 <= number < MAX_WORKERS:
        raise GraphError(f"{worker!r} is no worker; say 'worker:1' or 1, 0 being the home of the session")
    return number


class On:
    """The inside of one ``with tg.on(worker)``."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self._region = context.REGION.get()
        self._inside: WeakSet[Node] = WeakSet()

    def moved(self, op: Op, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The operands of an op, on the worker; constants follow, so that they need not move."""
        if not inputs or isinstance(op, Gradient) or context.REGION.get() is not self._region:
            return inputs  # a region moves with the op that owns it
        trace = context.TRACE.get()
        if trace is not None and trace.replication is not None:
            raise GraphError("tg.on is used in a function with replicas; place parts, or make replicas, but not both")
        if self.worker and not (session := inputs[0].session).home:
            session.note("tg.on: this server is one worker, so what is placed on others runs there as well")
        token = context.ON.set(None)
        try:
            found = [x if self._is_here(x) or _follows(x) else MoveTo(self.worker)(x) for x in inputs]
            if all(a is b for a, b in zip(found, inputs, strict=True)) and not any(map(self._is_here, inputs)):
                found[0] = MoveTo(self.worker)(found[0])
            return found
        finally:
            context.ON.reset(token)

    def made(self, node: Node) -> None:
        """An op has been applied to what `moved` gave."""
        if context.REGION.get() is self._region:
            self._inside.add(node)

    def hold(self, tensor: Tensor) -> Tensor:
        """The tensor on this worker, whatever it is."""
        return tensor if self._is_here(tensor) else self.moved(MoveTo(self.worker), [tensor])[0]

    def _is_here(self, x: Tensor) -> bool:
        if isinstance(x, Variable):
            return x.worker == self.worker
        return x._value.node in self._inside  # pyright: ignore[reportPrivateUsage]


def _follows(x: Tensor) -> bool:
    """Whether it is a constant, which is made wherever it is used."""
    if isinstance(x, Variable):
        return False
    node = x._value.node  # pyright: ignore[reportPrivateUsage]
    if isinstance(node, Leaf):
        return not isinstance(node.source, Handle | Version) and not node.types[0].shape
    return not node.inputs and not isinstance(node.op, Input)


# ---- micro-batches


def pipeline(f: Callable[P, Any], *, micro_batches: int) -> Callable[P, Any]:
    """f on a batch, ``micro_batches`` parts of its rows after each other; workers that hold stages work at once.

    Arguments that are tensors or arrays with an axis are split by rows, as `numpy.array_split` does it; variables,
    tensors without axes and everything else are the same for all. A scalar result is the mean over the micro-batches
    weighted by their rows, so the mean of a loss, and its gradients, are those of the whole batch; results with
    the rows of a micro-batch are put together. Gradients add up from the first micro-batch to the last. Every stage
    holds the activations of as few micro-batches as it can: forward and backward take turns (1F1B).

    Raises ShapeError if the arguments differ in rows, GraphError for a result that is neither a float scalar nor rows.

    ::

        @tg.function
        def step(x, y):
            loss = tg.pipeline(lambda x, y: cross_entropy(model(x), y), micro_batches=8)(x, y)
            optimizer.minimize(loss)
            return loss
    """
    if type(micro_batches) is not int or not 1 <= micro_batches <= MAX_MICRO_BATCHES:
        raise GraphError(f"micro_batches must be an integer from 1 to {MAX_MICRO_BATCHES}, not {micro_batches!r}")

    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        leaves, structure = flatten((args, kwargs))
        split = [_has_rows(x) for x in leaves]
        whole = [as_tensor(x) if is_split else x for x, is_split in zip(leaves, split, strict=True)]
        sizes = _sizes(whole, split, micro_batches)
        results: list[list[Tensor]] = []
        shape: Any = None
        start = 0
        for number, rows in enumerate(sizes):
            own = [
                MicroBatch(number)(x[start : start + rows]) if is_split else x
                for x, is_split in zip(whole, split, strict=True)
            ]
            start += rows
            nest_: Any = unflatten(structure, own)
            call: Callable[..., Any] = f
            found, nest = flatten(call(*nest_[0], **nest_[1]))
            if shape is not None and nest != shape:
                raise GraphError("a function in a pipeline returns the same nest for every micro-batch")
            shape = nest
            results.append([as_tensor(x) for x in found])
        return unflatten(shape, [_joined(each, sizes) for each in zip(*results, strict=True)])

    return run


def _has_rows(x: Any) -> bool:
    return hasattr(x, "dtype") and not isinstance(x, Variable) and len(x.shape) > 0


def _sizes(leaves: Sequence[Any], split: Sequence[bool], micro_batches: int) -> list[int]:
    """The rows of each micro-batch."""
    rows = {x.shape[0] for x, is_split in zip(leaves, split, strict=True) if is_split}
    if len(rows) != 1 or 0 in rows:
        found = f"have {', '.join(map(str, sorted(rows)))} rows" if rows else "have no rows to split"
        raise ShapeError(f"a pipeline splits the rows of its arguments, and these {found}")
    (total,) = rows
    count = min(micro_batches, total)
    return [total // count + (i < total % count) for i in range(count)]


def _joined(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """One result of all micro-batches."""
    first = parts[0]
    if not first.shape and first.dtype.is_float:
        # from the last to the first: a backward begins where the sum ended, and adds up the gradients in that order
        total: Tensor | None = None
        for part, rows in zip(reversed(parts), reversed(sizes), strict=True):
            weighted = part * (rows / sum(sizes))
            total = weighted if total is None else total + weighted
        assert total is not None
        return total
    if all(x.shape[:1] == (rows,) for x, rows in zip(parts, sizes, strict=True)):
        return parts[0] if len(parts) == 1 else Concat(0)(*parts)
    raise GraphError(
        f"a function in a pipeline returns float scalars, or what has the rows of a micro-batch, and not {first.type}"
    )
