"""The functions a worker knows: bytes by tenant and id, and the plans made of them. Least recently used goes first.

A function that is forgotten while a session still calls it is asked for again, so the limits may be small.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from telegrad.errors import GraphError, TelegradError, TooExpensive
from telegrad.ir.graph import Function, Replication
from telegrad.ir.types import Type
from telegrad.ops.parts import MARKS
from telegrad.wire.codec import decode_function, function_id, is_replicated, op_names, updated_inputs

from telegrad_server.compiler.fuse import is_worth_fusing
from telegrad_server.compiler.limits import Limits
from telegrad_server.compiler.parts import Cut
from telegrad_server.compiler.pipeline import Place, compile_function, compile_parts
from telegrad_server.compiler.plan import Plan
from telegrad_server.compiler.replicas import Share
from telegrad_server.config import Config
from telegrad_server.tree import Division

PLAIN_RUNS = 2
"""A graph that a client sends without declaring a function runs so often without kernels."""


class Signature(NamedTuple):
    """What a call of a function takes, gives and updates."""

    input_types: tuple[Type, ...]
    output_types: tuple[Type, ...]
    updates: tuple[tuple[int, int], ...]


@dataclass(slots=True, eq=False)
class Known:
    """A function's bytes until it is first run, then its plan, or why it has none.

    A data-parallel one keeps its bytes: other workers may need them, and each share of its replicas has its own plan.
    """

    nbytes: int
    updates: tuple[int, ...]
    data: bytes | None = None
    plan: Plan | None = None
    plain_plan: Plan | None = None
    """That of a graph in its first runs."""
    graph_runs: int = 0
    refusal: TelegradError | None = None
    is_replicated: bool = False
    replication: Replication | None = None
    signature: Signature | None = None
    shares: dict[tuple[Share, Place | None], Plan] = field(default_factory=dict[tuple[Share, "Place | None"], Plan])
    is_marked: bool = False
    """Whether it holds marks of where its parts run."""
    cuts: dict[tuple[int | None, ...], Cut] = field(default_factory=dict[tuple[int | None, ...], Cut])


class Functions:
    """A cache of functions. The key holds the tenant, so nobody learns what others run.

    Not for two threads at once, except `plan_of`, which touches nothing but the function it is given.
    """

    def __init__(
        self,
        *,
        capacity: int,
        capacity_bytes: int,
        max_nodes: int,
        limits: Limits,
        keeps_bytes: bool = False,
        kernels: Literal["c", "cuda", "none"] = "none",
    ) -> None:
        """``keeps_bytes`` where a function may be run by several workers, after it was run by one; ``kernels`` says
        what the executor has for groups of ops."""
        self._keeps_bytes = keeps_bytes
        self._kernels: Literal["c", "cuda", "none"] = kernels
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._max_nodes = max_nodes
        self._limits = limits
        self._known: OrderedDict[tuple[str, bytes], Known] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, tenant: str, function: bytes) -> bool:
        """Whether the function is here; it is then the one used last."""
        key = (tenant, function)
        if key in self._known:
            self._known.move_to_end(key)
            return True
        return False

    def find(self, tenant: str, function: bytes) -> Known | None:
        """What is known of a function."""
        return self._known.get((tenant, function))

    def updated_by(self, tenant: str, function: bytes) -> tuple[int, ...]:
        """Which inputs of the function are variables that it updates; none if the function is not here."""
        known = self._known.get((tenant, function))
        return known.updates if known is not None else ()

    def add(self, tenant: str, function: bytes, known: Known) -> None:
        """Take a function that `read_function` has checked; make room for it."""
        if (tenant, function) in self._known:
            return
        self._known[tenant, function] = known
        self.nbytes += known.nbytes
        while len(self._known) > 1 and (len(self._known) > self._capacity or self.nbytes > self._capacity_bytes):
            self.nbytes -= self._known.popitem(last=False)[1].nbytes

    def plan_of(self, known: Known) -> Plan:
        """The function's plan, made at its first run. Raises what is wrong with it, each time."""
        if known.refusal is not None:
            raise _again(known.refusal)
        if known.plan is None:
            known.plan = self._compiled(known, None)
            self._forget_bytes(known)
        return known.plan

    def plan_of_graph(self, known: Known) -> Plan:
        """The plan of a graph that nobody has declared a function: without kernels, so that no compiler stands between
        a prompt and its answer, until it runs for the third time.
        """
        if self._kernels == "none" or known.plan is not None:
            return self.plan_of(known)
        known.graph_runs += 1
        if known.graph_runs > PLAIN_RUNS:
            known.plain_plan = None
            return self.plan_of(known)
        if known.refusal is not None:
            raise _again(known.refusal)
        if known.plain_plan is None:
            function = self._decoded(known)
            plan = self._compiled(known, None, function=function, kernels="none")
            if not is_worth_fusing(function.graph):  # there will be no other
                known.plan = plan
                self._forget_bytes(known)
                return plan
            known.plain_plan = plan
        return known.plain_plan

    def plan_to_explain(self, known: Known, *, is_recorded: bool) -> Plan:
        """The plan with which the function's next run begins, as far as it is not shared with other workers.

        That of a graph is made anew where there is none: which plan its runs have follows from how many there were.
        """
        if not is_recorded or self._kernels == "none" or known.plan is not None:
            return self.plan_of(known)
        if known.refusal is not None:
            raise _again(known.refusal)
        return known.plain_plan or self._compiled(known, None, kernels="none")

    def _forget_bytes(self, known: Known) -> None:
        if not known.is_replicated and not self._keeps_bytes:
            known.data = None

    def share_of(self, known: Known, division: Division, rank: int) -> Plan:
        """The plan of a member's share of a data-parallel function's replicas."""
        if known.refusal is not None:
            raise _again(known.refusal)
        share, size = Share(*division.blocks[rank]), len(division.blocks)
        place = Place(rank, size) if self.replication_of(known).shards and size > 1 else None
        if (share, place) not in known.shares:
            known.shares[share, place] = self._compiled(known, share, place)
        return known.shares[share, place]

    def parts_of(self, known: Known, places: tuple[int | None, ...]) -> Cut:
        """The parts of a function whose inputs live on the workers in ``places``."""
        if known.refusal is not None:
            raise _again(known.refusal)
        if places not in known.cuts:
            function = self._decoded(known)
            try:
                known.cuts[places] = compile_parts(function, places, limits=self._limits)
            except (GraphError, TooExpensive) as error:
                self._refuse(known, error)
                raise
        return known.cuts[places]

    def plan_of_part(self, part: Function) -> Plan:
        """The plan of a part that runs here."""
        return compile_function(part, limits=self._limits)

    def signature_of(self, known: Known) -> Signature:
        """What a call of the function takes, before there is a plan. Raises what is wrong with it, each time."""
        if known.refusal is not None:
            raise _again(known.refusal)
        if known.signature is None:
            self._decoded(known)
            assert known.signature is not None
        return known.signature

    def replication_of(self, known: Known) -> Replication:
        """How a data-parallel function's rows are divided over replicas."""
        self.signature_of(known)
        assert known.replication is not None
        return known.replication

    def _compiled(
        self,
        known: Known,
        share: Share | None,
        place: Place | None = None,
        *,
        function: Function | None = None,
        kernels: Literal["c", "cuda", "none"] | None = None,
    ) -> Plan:
        function = function or self._decoded(known)
        try:
            return compile_function(
                function, limits=self._limits, share=share, place=place, kernels=kernels or self._kernels
            )
        except (GraphError, TooExpensive) as error:
            self._refuse(known, error)
            raise

    def _decoded(self, known: Known) -> Function:
        assert known.data is not None
        try:
            function = decode_function(known.data, max_nodes=self._max_nodes)
        except (GraphError, TooExpensive) as error:
            self._refuse(known, error)
            raise
        known.replication = function.replication
        known.signature = Signature(function.input_types, function.output_types, function.updates)
        return function

    def _refuse(self, known: Known, error: TelegradError) -> None:
        """It will never be legal; other errors may pass."""
        known.refusal, known.data = _again(error), None


def functions_for(config: Config, *, kernels: Literal["c", "cuda", "none"], keeps_bytes: bool) -> Functions:
    """A cache of the size that an operator has chosen."""
    return Functions(
        capacity=config.cached_functions,
        capacity_bytes=config.cached_function_bytes,
        max_nodes=config.max_graph_nodes,
        limits=Limits(tensor_bytes=config.max_tensor_bytes, flops=config.max_flops),
        keeps_bytes=keeps_bytes,
        kernels=kernels,
    )


def read_function(function: bytes, data: bytes) -> Known:
    """A function as it came. GraphError (FUNCTION_MISMATCH) if the bytes are not those of the id.

    Bytes that are no function are known too: the Run that asked for them fails with what is wrong.
    """
    if function_id(data) != function:
        raise GraphError("the bytes of a function do not have the id they came with", reason="FUNCTION_MISMATCH")
    try:
        marked = not op_names(data).isdisjoint(op.name for op in MARKS)
        return Known(len(data), updated_inputs(data), data, is_replicated=is_replicated(data), is_marked=marked)
    except GraphError as error:
        return Known(len(data), (), refusal=_again(error))


def _again(error: TelegradError) -> TelegradError:
    """The same error without the frames it was raised through, which would keep graphs alive."""
    return type(error)(error.message, reason=error.reason, **error.details)
