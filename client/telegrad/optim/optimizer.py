"""Optimizer: parameter groups, state as variables, updates as ops.

A step is part of the graph: inside ``tg.function`` it is sent once with the rest. Numbers in a group (the learning
rate) are asked for at every call, so changing one takes effect at once and traces nothing anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from telegrad import context
from telegrad.creation import full
from telegrad.errors import GraphError
from telegrad.function import live_number
from telegrad.ir import types
from telegrad.ops.shape import zeros_like
from telegrad.tensor import Parameter, Tensor, Variable

Group = dict[str, Any]


class Optimizer:
    """The family. A subclass names its state in ``begin`` and writes one parameter's update in ``update``."""

    def __init__(self, params: Iterable[Parameter] | Iterable[Mapping[str, Any]], defaults: Group) -> None:
        given = list(params)
        if not given:
            raise GraphError("an optimizer needs at least one parameter")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        self.param_groups: list[Group] = []
        self.state: dict[int, dict[str, Variable]] = {}
        for group in groups:
            assert isinstance(group, Mapping)
            unknown = group.keys() - defaults.keys() - {"params"}
            if unknown:
                raise GraphError(f"a parameter group has unknown options {sorted(unknown)}")
            self.param_groups.append({**defaults, **group, "params": list(group["params"])})
        seen: set[int] = set()
        for group in self.param_groups:
            for parameter in group["params"]:
                if not isinstance(parameter, Variable):
                    raise GraphError(f"an optimizer takes parameters, not {type(parameter).__name__}")
                if id(parameter) in seen:
                    raise GraphError(f"{parameter.describe()} is in two parameter groups")
                seen.add(id(parameter))
                self.state[id(parameter)] = self.begin(parameter, group)
        context.current_session().flush()

    def begin(self, parameter: Variable, group: Group) -> dict[str, Variable]:
        """The state of a parameter before its first step."""
        return {}

    def update(self, parameter: Variable, grad: Tensor, state: dict[str, Variable], group: Group) -> None:
        """Assign the parameter's next version, and the state's."""
        raise GraphError(f"{type(self).__name__} defines no update")

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        with context.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    grad = parameter.grad
                    if grad is not None:
                        self.update(parameter, grad, self.state[id(parameter)], group)
        if context.TRACE.get() is None:
            self.param_groups[0]["params"][0].session.flush()

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def minimize(self, loss: Tensor) -> None:
        """Backward, step, and clear the gradients."""
        loss.backward()
        self.step()
        self.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Options and state, by the position of each parameter, as NumPy arrays."""
        state: dict[int, dict[str, Any]] = {}
        groups: list[Group] = []
        number = 0
        for group in self.param_groups:
            numbers: list[int] = []
            for parameter in group["params"]:
                state[number] = {name: v.numpy() for name, v in self.state[id(parameter)].items()}
                numbers.append(number)
                number += 1
            groups.append({**group, "params": numbers})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state. GraphError if groups or names do not fit."""
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise GraphError("load_state_dict: the parameter groups have other sizes")
        number = 0
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})
            for parameter in group["params"]:
                known, given = self.state[id(parameter)], state_dict["state"].get(number, {})
                if known.keys() != given.keys():
                    raise GraphError(f"load_state_dict: state {number} has {sorted(given)}, needed are {sorted(known)}")
                for name, variable in known.items():
                    variable.assign(np.asarray(given[name]))
                number += 1
        context.current_session().flush()


def number(group: Group, name: str) -> Any:
    """A number of the group, live in a trace."""
    return live_number(lambda: float(group[name]))


def zeros_for(parameter: Variable, name: str) -> Variable:
    """A state variable of zeros of the parameter's type."""
    return Variable(zeros_like(parameter.detach()), name=f"{parameter.name or 'parameter'}.{name}")


def counter(parameter: Variable) -> Variable:
    """A state variable that counts steps, in the parameter's dtype or float32 if that is narrower."""

    dtype = types.float64 if parameter.dtype is types.float64 else types.float32
    return Variable(full((), 0.0, dtype=dtype), name=f"{parameter.name or 'parameter'}.step")
