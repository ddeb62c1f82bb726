"""What an update is written with: the options and the state of one step, and the arithmetic that optimizers share.

The numbers of a group (learning rate, decay, betas) are asked for at every call, so changing one takes effect at once
and traces nothing anew. What decides which ops are written (a flag, whether a momentum is zero) is part of the
signature. The arithmetic of numbers (bias corrections, schedules) is done in float64 whatever the parameters are:
1 - 0.999 has three digits less than its operands, which float32 cannot spare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from telegrad import context, ops
from telegrad.creation import full
from telegrad.errors import GraphError
from telegrad.function import guard, live_number
from telegrad.ir import types
from telegrad.ops.shape import full_like
from telegrad.tensor import Tensor
from telegrad.variable import Variable

Group = dict[str, Any]
Variables = dict[str, Variable]
Number = Tensor | float
Rate = float | Callable[[Tensor], Tensor]
"""A number, or a schedule: a function from the count of steps taken, float64[], to the number at that step."""


class Options:
    """A group's options during one step, each read once: numbers are live in a trace, everything else is a guard."""

    def __init__(self, group: Group, count: Callable[[], Tensor]) -> None:
        self._group = group
        self._count = count
        self._known: dict[tuple[str, str], Any] = {}

    def number(self, name: str) -> Number:
        """A number, or what its schedule gives at this step."""
        return self._once("number", name, self._number)

    def pair(self, name: str) -> tuple[Number, Number]:
        """Both of a pair of numbers, such as betas."""
        return self._once("pair", name, self._pair)

    def flag(self, name: str) -> Any:
        """An option that decides which ops are written; false if the optimizer does not know it."""
        group = self._group
        return self._once("flag", name, lambda _: guard(lambda: group.get(name, False)))

    def has(self, name: str) -> bool:
        """Whether a number is not zero."""
        group = self._group
        return self._once("has", name, lambda _: guard(lambda: callable(group[name]) or group[name] != 0))

    def _once(self, kind: str, name: str, read: Callable[[str], Any]) -> Any:
        if (kind, name) not in self._known:
            self._known[kind, name] = read(name)
        return self._known[kind, name]

    def _number(self, name: str) -> Number:
        group = self._group
        schedule = guard(lambda: group[name] if callable(group[name]) else None)
        if schedule is None:
            return live_number(lambda: float(group[name]), name)
        return as_number(schedule(self._count()))

    def _pair(self, name: str) -> tuple[Number, Number]:
        group = self._group
        return live_number(lambda: float(group[name][0])), live_number(lambda: float(group[name][1]))


class State:
    """A parameter's state during one step: reading gives the present version, setting makes the next."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def __contains__(self, name: str) -> bool:
        return name in self._variables

    def __getitem__(self, name: str) -> Tensor:
        return self._variables[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._variables[name].assign(value)


def require(holds: bool, sentence: str) -> None:
    """GraphError with the sentence unless it holds."""
    if not holds:
        raise GraphError(sentence)


def as_number(x: Tensor) -> Tensor:
    """The 0-d tensor as a weak one: like a Python number it takes the dtype of what it is combined with."""
    home = context.TRACE.get() or x.session
    return home.tensor(home.value_of(x), weak=True)


def zeros_for(parameter: Variable, name: str) -> Variable:
    """A state variable of zeros of the parameter's type."""
    return filled_for(parameter, name, 0.0)


def filled_for(parameter: Variable, name: str, number: float) -> Variable:
    """A state variable of the parameter's type, all one number."""
    return Variable(full_like(parameter.detach(), number), name=f"{parameter.name or 'parameter'}.{name}")


def scalar_for(parameter: Variable, name: str, number: float) -> Variable:
    """A state variable of one number, float64[]."""
    return Variable(full((), number, dtype=types.float64), name=f"{parameter.name or 'parameter'}.{name}")


def counter(parameter: Variable) -> Variable:
    """A state variable that counts steps, float64[]: float32 would stop at 16,777,216."""
    return scalar_for(parameter, "step", 0.0)


def advanced(state: State) -> Tensor:
    """The number of this step, from 1; the state's counter is set to it."""
    step = as_number(state["step"]) + 1
    state["step"] = step
    return step


def averaged(state: State, name: str, new: Tensor, beta: Number) -> Tensor:
    """beta * state + (1 - beta) * new, to which the state is set."""
    state[name] = mean = state[name] * beta + new * (1 - beta)
    return mean


def penalised(grad: Tensor, value: Tensor, options: Options) -> Tensor:
    """The gradient with that of weight_decay / 2 * |value|^2."""
    return grad + value * options.number("weight_decay") if options.has("weight_decay") else grad


def shrunk(value: Tensor, options: Options) -> Tensor:
    """The value times 1 - lr * weight_decay: decay that is decoupled from the gradient."""
    if not options.has("weight_decay"):
        return value
    return value * (1 - options.number("lr") * options.number("weight_decay"))


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of all elements as a weak 0-d tensor, summed in float32 at least."""
    wide = ops.astype(x, types.promote(x.dtype, types.float32))
    return as_number(ops.astype(ops.sqrt(ops.sum(wide * wide)), types.float64))  # as all numbers are
