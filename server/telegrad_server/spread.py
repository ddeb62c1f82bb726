"""A value that no worker holds whole: its spans are with the members of a group, the first with this session's home.

Whoever wants all of it asks for `whole`, which may wait for other workers. What is held by a worker that has died
is lost: reading it is an error, and giving its variable a new value mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from telegrad.errors import TelegradError
from telegrad.ir.types import Shape, Type

from telegrad_server.compiler.plan import Plan


class Spread:
    """A value in spans. Never changes; it is gathered once at most."""

    def __init__(self, type: Type, own: Any, name: int, variable: int, gather: Callable[[Spread], Any]) -> None:
        self.type = type
        self.own = own
        """The home's span; None once the value is whole or lost."""
        self.name = name
        """What the peers call their spans."""
        self.variable = variable
        """What the session calls the variable whose value it is."""
        self._gather = gather
        self._whole: Any = None
        self._error: TelegradError | None = None
        self._nbytes = int(own.nbytes)

    @property
    def shape(self) -> Shape:
        """The shape of the whole."""
        return self.type.shape

    @property
    def nbytes(self) -> int:
        """What this worker was charged for it."""
        return self._nbytes

    def whole(self) -> Any:
        """The whole array. Raises StateLost if a part of it is gone; may wait for other workers."""
        if self._error is not None:
            raise self._error
        return self._gather(self) if self._whole is None else self._whole

    def settle(self, whole: Any) -> None:
        """From here on the home holds all of it."""
        self._whole, self.own = whole, None

    def lose(self, error: TelegradError) -> None:
        """A part of it is gone."""
        self._error, self.own = error, None


def whole(value: Any) -> Any:
    """The array that a value is."""
    return value.whole() if isinstance(value, Spread) else value


def gathered(plan: Plan, operands: Sequence[Any]) -> list[Any]:
    """The operands whole, as far as the plan reads them: an assignment does not read what it replaces."""
    if Spread not in map(type, operands):
        return list(operands)
    read = {*plan.outputs, *[i for step in plan.steps for i in step.inputs]}
    return [whole(value) if i in read else value for i, value in zip(plan.inputs, operands, strict=True)]
