"""The functions a worker knows: bytes by tenant and id, and the plans made of them. Least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from telegrad.errors import GraphError, TelegradError
from telegrad.wire.codec import decode_function, function_id

from telegrad_server.compiler.limits import Limits
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.compiler.plan import Plan


@dataclass(slots=True)
class Known:
    """A function's bytes until it is first run, then its plan, or why it has none."""

    data: bytes | None
    updates: tuple[int, ...]
    plan: Plan | None = None
    error: TelegradError | None = None


class Functions:
    """A cache of functions. The key holds the tenant, so nobody learns what others run."""

    def __init__(self, *, capacity: int, max_nodes: int, limits: Limits) -> None:
        self._capacity = capacity
        self._max_nodes = max_nodes
        self._limits = limits
        self._known: OrderedDict[tuple[str, bytes], Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, tenant: str, function: bytes) -> bool:
        """Whether the function's bytes or plan are here."""
        key = (tenant, function)
        if key in self._known:
            self._known.move_to_end(key)
            return True
        return False

    def add(self, tenant: str, function: bytes, data: bytes) -> None:
        """Take a function's bytes. Raises GraphError if they are not those of the id."""
        if function_id(data) != function:
            raise GraphError("the bytes of a function do not have the id they came with", reason="FUNCTION_MISMATCH")
        if (tenant, function) not in self._known:
            self._known[tenant, function] = Known(data, ())
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)

    def updated_by(self, tenant: str, function: bytes) -> tuple[int, ...]:
        """Which inputs of the function are variables that it updates, if it has been looked at yet."""
        known = self._known.get((tenant, function))
        return known.updates if known is not None else ()

    def find(self, tenant: str, function: bytes) -> Known | None:
        """What is known of a function."""
        return self._known.get((tenant, function))

    def compile(self, known: Known) -> Plan:
        """The function's plan, made at its first run. Raises what is wrong with it, each time."""
        if known.error is not None:
            raise _again(known.error)
        if known.plan is None:
            assert known.data is not None
            try:
                function = decode_function(known.data, max_nodes=self._max_nodes)
                known.updates = tuple(i for i, _ in function.updates)
                known.plan = compile_function(function, limits=self._limits)
            except TelegradError as error:
                known.error = error
                raise
            known.data = None
        return known.plan


def _again(error: TelegradError) -> TelegradError:
    return type(error)(error.message, reason=error.reason, **error.details)
