"""What a step would take, before it is run: `session.explain`.

What crosses the wire is known here; the server, which compiles, tells of steps, kernels and memory, by nodes of the
graph that the client sent, and the client knows the line of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from telegrad.errors import GraphError
from telegrad.function import Bound, Compiled, Function
from telegrad.ir.types import Type
from telegrad.lazy import Argument, Captured, Immediate, Leaf, Line, Live, PresentGrad, Source, show
from telegrad.nest import flatten
from telegrad.prepared import Prepared
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.wire import messages as m

SHOWN = 8
"""So many groups, results and lines are printed; the fields hold all."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that cross the wire, and what they are."""

    what: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A line of the program that has waited for the server, and how often it did so in this session."""

    line: Line | None
    count: int


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of the plan. ``ops`` are several where they were put together, and ``lines`` where they were written.

    ``kernel`` is "printed" (in C, for this group), "library" (in C, with run-time shapes), "array" (NumPy or CuPy),
    "loop", "view" or "constant"; ``live_bytes`` what is live of the plan's memory while it runs; ``depth`` the number
    of loops that it is in, of which ``flops`` and ``moved_bytes`` count all trips.
    """

    ops: tuple[str, ...]
    lines: tuple[Line | None, ...]
    is_backward: bool
    kernel: str
    flops: int
    moved_bytes: int
    live_bytes: int
    depth: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a step would take. `str` is a table; every number in it is a field.

    ``up`` crosses the wire in each step, ``first_up`` once; ``results`` stay on the server, and each one that is read
    takes a round trip and its bytes. ``waits`` are the lines that have waited in this session so far. ``steps`` are at
    most the first 10,000 of ``all_steps``. ``signatures`` is how often the function was traced in this session, and
    ``changed`` what differed the last time; both are empty for a graph.
    """

    name: str
    up: tuple[Traffic, ...]
    first_up: Traffic
    results: tuple[Type, ...]
    waits: tuple[RoundTrip, ...]
    written_ops: int
    all_steps: int
    steps: tuple[PlannedStep, ...]
    flops: int
    moved_bytes: int
    arena_bytes: int
    peak_bytes: int
    peak: PlannedStep | None
    signatures: int
    changed: str

    @property
    def up_bytes(self) -> int:
        """Bytes up in each step."""
        return sum([traffic.nbytes for traffic in self.up])

    @property
    def down_bytes(self) -> int:
        """Bytes down if every result is read."""
        return sum([type.nbytes for type in self.results])

    @property
    def planned_ops(self) -> int:
        """Ops after all passes."""
        return sum([len(step.ops) for step in self.steps])

    @property
    def kernels(self) -> dict[str, int]:
        """How many steps there are of each kind."""
        return dict(Counter(step.kernel for step in self.steps))

    @property
    def without_kernel(self) -> dict[str, int]:
        """The ops that the array library does, and how often."""
        return dict(Counter(step.ops[0] for step in self.steps if step.kernel == "array").most_common())

    @property
    def fused(self) -> tuple[PlannedStep, ...]:
        """The steps that are several ops put together."""
        return tuple([step for step in self.steps if len(step.ops) > 1])

    def __str__(self) -> str:
        return "\n".join(_table(self))

    __repr__ = __str__


def explain(
    session: Session, step: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Explanation:
    """What a call would take, or without ``step`` the graph that is pending; see `Session.explain`."""
    if step is None:
        pending = session.pending()
        if pending is None:
            raise GraphError("nothing is pending: explain(step, *args), or ask before the result is read")
        return _explained(session, "the pending graph", pending, _traffic(session, pending, {}, {}), is_recorded=True)
    if isinstance(step, Bound):
        step, args = step.function, (step.instance, *args)
    function: Function[..., Any] = step if isinstance(step, Function) else Function(step)
    with session.active():
        found, compiled, leaves = function.prepared(args, kwargs)
    if found is not session:
        raise GraphError(f"the arguments belong to another session, {found}; ask that one")
    names = _names(function.parameters, args, kwargs)
    up = _traffic(session, compiled.prepared, dict(enumerate(leaves)), dict(enumerate(names)))
    name = getattr(function.python, "__qualname__", "function")
    return _explained(
        session, name, compiled.prepared, up, is_recorded=False, compiled=compiled, history=function.history(session)
    )


def _explained(
    session: Session,
    name: str,
    function: Prepared,
    up: tuple[Traffic, ...],
    *,
    is_recorded: bool,
    compiled: Compiled | None = None,
    history: tuple[int, str] = (0, ""),
) -> Explanation:
    found = session.commands.explain(function, is_recorded=is_recorded)
    steps = tuple([_step(step, function.lines) for step in found.steps])
    results = function.output_types[: len(function.output_types) - function.updates] if compiled is None else ()
    return Explanation(
        name=name,
        up=up,
        first_up=Traffic("the function", len(function.data)),
        results=results if compiled is None else tuple(compiled.types),
        waits=tuple([RoundTrip(line, count) for line, count in session.commands.waits.most_common()]),
        written_ops=sum([line is not None for line in function.lines]),
        all_steps=found.all_steps,
        steps=steps,
        flops=found.flops,
        moved_bytes=found.moved_bytes,
        arena_bytes=found.arena_bytes,
        peak_bytes=found.peak_bytes,
        peak=steps[found.peak_step] if found.peak_step >= 0 else None,
        signatures=history[0],
        changed=history[1],
    )


def _step(step: m.ExplainedStep, lines: Sequence[Line | None]) -> PlannedStep:
    where = [lines[node] if 0 <= node < len(lines) else None for node in step.nodes]
    return PlannedStep(
        step.ops,
        tuple(where),
        step.is_backward,
        step.kernel,
        step.flops,
        step.moved_bytes,
        step.live_bytes,
        step.depth,
    )


# ---- what crosses the wire


def _names(parameters: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """For each leaf of a call's arguments, what it is called."""
    found: list[str] = []
    for i, x in enumerate(args):
        found += [parameters[min(i, len(parameters) - 1)]] * len(flatten(x)[0])
    for name, x in kwargs.items():
        found += [name] * len(flatten(x)[0])
    return found


def _traffic(
    session: Session, function: Prepared, leaves: dict[int, Any], names: dict[int, str]
) -> tuple[Traffic, ...]:
    """What a Run of the function sends: itself, and the bytes that come with it or go on a stream of their own."""
    brought: Counter[str] = Counter()
    named = 0
    for source, type in zip(function.sources, function.input_types, strict=True):
        what = _brought(source, leaves, names)
        if what is None:
            named += 1
        else:
            whole = leaves.get(source.position) if isinstance(source, Argument) else None
            brought[what] += whole.nbytes if isinstance(whole, np.ndarray) else type.nbytes  # not a replica's rows
    run = _run_bytes(session, function, named)
    return Traffic("the call", run), *[Traffic(what, nbytes) for what, nbytes in brought.items()]


def _brought(source: Source, leaves: dict[int, Any], names: dict[int, str]) -> str | None:
    """What the bytes are that a source brings along; None if it is a name on the server."""
    match source:
        case Immediate():
            return "constants"
        case Live():
            return source.name or "numbers"
        case Argument():
            x, what = leaves[source.position], names[source.position]
        case Captured():
            x, what = source.tensor, "constants"
        case PresentGrad():
            return None
        case _:
            return None
    if not isinstance(x, Tensor):
        return what
    node = x.value.node
    return what if isinstance(node, Leaf) and isinstance(node.source, Immediate) else None


def _run_bytes(session: Session, function: Prepared, named: int) -> int:
    """The size of the message without the bytes that it brings."""
    from telegrad.wire.stream import command_to_proto

    name = session.commands.last_name + 1
    run = m.Run(
        function.id,
        (*[name] * named, *[0] * (len(function.sources) - named)),
        (*[name] * (len(function.output_types) - function.updates), *[0] * function.updates),
        scope=session.scopes.current.number,
    )
    return command_to_proto(session.commands.sequence + 1, run).ByteSize()


# ---- the table


def _table(e: Explanation) -> Iterator[str]:
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(e.kernels.items())) or "none"
    ops = f"{e.written_ops:,} ops as written, {e.planned_ops:,} after all passes"
    yield f"{e.name}: {ops}, in {e.all_steps:,} steps ({counts})"
    yield f"  up            {_bytes(e.up_bytes)} a step: " + ", ".join(f"{t.what} {_bytes(t.nbytes)}" for t in e.up)
    yield f"  up once       {e.first_up.what} {_bytes(e.first_up.nbytes)}"
    results = ", ".join(map(str, e.results[:SHOWN])) + (", …" if len(e.results) > SHOWN else "")
    yield f"  down          nothing, until a result is read ({results or 'none'}: {_bytes(e.down_bytes)})"
    yield "  round trips   none in the call; one for each read"
    for wait in e.waits[:SHOWN]:
        yield f"                so far {wait.count:,} at {show(wait.line)}"
    yield f"  compute       {_count(e.flops)} operations, {_bytes(e.moved_bytes)} read and written by the steps"
    yield f"  memory        {_bytes(e.peak_bytes)} at most" + (f"; most at {_place(e.peak)}" if e.peak else "")
    for step in e.fused[:SHOWN]:
        yield f"  fused         {_place(step)}, {step.kernel}"
    if len(e.fused) > SHOWN:
        yield f"                and {len(e.fused) - SHOWN:,} more groups"
    if e.without_kernel:
        yield "  no kernel     " + ", ".join(f"{op} {count}" for op, count in e.without_kernel.items())
    if e.signatures:
        why = f"; the last time because of {e.changed}" if e.changed else ""
        yield f"  compiled      for {e.signatures:,} signature{'s' if e.signatures > 1 else ''}{why}"


def _place(step: PlannedStep) -> str:
    """A step's ops, and the lines they come from."""
    ops = " ".join(step.ops[:SHOWN]) + (" …" if len(step.ops) > SHOWN else "")
    lines = list(dict.fromkeys(show(line) for line in step.lines if line is not None))
    where = ", ".join(lines[:3]) + (", …" if len(lines) > 3 else "")
    return f"{ops} ({'the gradient of ' if step.is_backward and where else ''}{where or 'an unknown line'})"


def _bytes(nbytes: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if nbytes < 10_000 or unit == "GB":
            return f"{nbytes:,.0f} {unit}"
        nbytes = round(nbytes / 1000)
    raise AssertionError(nbytes)


def _count(number: int) -> str:
    for unit in ("", " thousand", " million", " billion"):
        if number < 10_000 or unit == " billion":
            return f"{number:,.0f}{unit}"
        number = round(number / 1000)
    raise AssertionError(number)
