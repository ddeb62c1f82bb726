"""What a job calls its tensors: as the program that submits it does, ``model.0.weight`` or ``optimizer.0.exp_avg``.

The function's free variables tell: modules, optimizers and variables that its code reaches by name. What no name leads
to is called by its own, with a number.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from telegrad.nn.module import Module
from telegrad.optim.lr_scheduler import Schedule
from telegrad.optim.optimizer import Optimizer
from telegrad.tensor import Tensor
from telegrad.variable import Variable


def module_tensors(module: Module) -> Iterator[tuple[str, Variable]]:
    """Every parameter and buffer by dotted name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def optimizer_tensors(optimizer: Optimizer) -> Iterator[tuple[str, Variable]]:
    """Every variable of the optimizer's state, by the number of its parameter, and those of its schedules."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, variable in optimizer.state[id(parameter)].items():
            yield f"{number}.{name}", variable
    if optimizer.steps is not None:
        yield "steps", optimizer.steps
    for number, group in enumerate(optimizer.param_groups):
        for option, value in group.items():
            if isinstance(value, Schedule):
                yield from ((f"groups.{number}.{option}.{name}", v) for name, v in value.named_variables())


def _reached(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The objects that the function's code names, by name."""
    try:
        found = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return
    yield from found.nonlocals.items()
    yield from found.globals.items()
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from vars(owner).items()


class Names:
    """Names of tensors, each once. ``functions`` are those whose free variables lead to them."""

    def __init__(self, functions: list[Callable[..., Any]]) -> None:
        self._known: dict[int, str] = {}
        self._taken: set[str] = set()
        for function in functions:
            for name, thing in _reached(function):
                if isinstance(thing, Module):
                    self._add(name, module_tensors(thing))
                elif isinstance(thing, Optimizer):
                    self._add(name, optimizer_tensors(thing))
                elif isinstance(thing, Variable):
                    self._known.setdefault(id(thing), self._free(name))

    def _add(self, root: str, tensors: Iterator[tuple[str, Variable]]) -> None:
        for name, variable in tensors:
            if id(variable) not in self._known:
                self._known[id(variable)] = self._free(f"{root}.{name}")

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._taken:
            found, number = f"{name}~{number}", number + 1
        self._taken.add(found)
        return found

    def of(self, tensor: Tensor) -> str:
        """The name of a tensor, always the same."""
        name = self._known.get(id(tensor))
        if name is None:
            own = tensor.name if isinstance(tensor, Variable) and tensor.name else "tensor"
            name = self._known[id(tensor)] = self._free(own)
        return name
