"""Optimizer: parameter groups, state as variables, and the step, which is part of the graph.

Inside ``tg.function`` a step is sent once with the rest and then called by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from telegrad import context, ops
from telegrad.creation import full
from telegrad.errors import GraphError
from telegrad.function import guard
from telegrad.ir import types
from telegrad.optim.update import Group, Options, State, Variables, as_number, require
from telegrad.parts import beside
from telegrad.tensor import Tensor
from telegrad.variable import Parameter, Variable

_NOT_NEGATIVE = ("lr", "eps", "weight_decay", "momentum", "momentum_decay", "lr_decay", "initial_accumulator_value")


class Optimizer:
    """The family. A subclass names its state in ``begin`` and writes one parameter's update in ``update``.

    Takes parameters, or groups ``{"params": [...], "lr": ...}`` with options of their own. ``lr`` and every other
    single number may be a schedule. A group with ``"master_weights": True`` keeps float32 copies of its 16-bit
    parameters and float32 state, so that steps too small for 16 bits add up; the copies are taken once, when the
    group is added. GraphError for an option out of its range or unknown, or a parameter given twice.
    """

    def __init__(self, params: Iterable[Parameter] | Iterable[Mapping[str, Any]], defaults: Group) -> None:
        given = list(params)
        if not given:
            raise GraphError("an optimizer needs at least one parameter")
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[int, Variables] = {}
        self.steps: Variable | None = None
        """How many steps were taken; counted only for schedules."""
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            assert isinstance(group, Mapping)
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Take over more parameters, under the key "params", with options of their own."""
        unknown = param_group.keys() - self.defaults.keys() - {"params", "master_weights"}
        if unknown:
            raise GraphError(f"a parameter group has unknown options {sorted(unknown)}")
        given = param_group["params"]
        parameters: list[Any] = [given] if isinstance(given, Variable) else list(given)
        group: Group = {**self.defaults, **param_group, "params": parameters}
        self.check(group)
        for i, parameter in enumerate(parameters):
            if not isinstance(parameter, Variable):
                raise GraphError(f"an optimizer takes parameters, not {type(parameter).__name__}")
            if id(parameter) in self.state or any(parameter is p for p in parameters[:i]):
                raise GraphError(f"{parameter.describe()} is in two parameter groups")
        for parameter in parameters:
            with beside(parameter):
                self.state[id(parameter)] = self._begin(parameter, group)
        self.param_groups.append(group)
        if any(callable(option) for option in group.values()):
            self._count()
        context.current_session().flush()

    def _begin(self, parameter: Variable, group: Group) -> Variables:
        if not group.get("master_weights", False) or parameter.dtype.itemsize >= 4:
            return self.begin(parameter, group)
        copy = ops.astype(parameter.detach(), types.float32)
        master = Variable(copy, name=f"{parameter.name or 'parameter'}.master")
        return {"master": master, **self.begin(master, group)}

    def schedule(self, rate: Callable[[Tensor], Tensor], option: str = "lr") -> None:
        """Let a schedule decide an option of every group from now on. GraphError inside ``tg.function``."""
        require(context.TRACE.get() is None, "give an optimizer its schedule outside of tg.function")
        for group in self.param_groups:
            require(option in group, f"{type(self).__name__} has no option {option!r}")
            group[option] = rate
        self._count()
        context.current_session().flush()

    def check(self, group: Group) -> None:
        """GraphError if an option is out of its range. A subclass adds its own."""
        name = type(self).__name__
        for option in _NOT_NEGATIVE:
            value = group.get(option, 0.0)
            require(not isinstance(value, Tensor), f"{name}: {option} is a tensor; give a schedule, lambda step: x")
            if isinstance(value, (int, float)):
                require(value >= 0, f"{name}: {option} must be at least 0, not {value}")
        for beta in group.get("betas", ()):
            require(0 <= beta < 1, f"{name}: betas must be at least 0 and less than 1, not {beta}")

    def begin(self, parameter: Variable, group: Group) -> Variables:
        """The state of a parameter before its first step."""
        return {}

    def update(self, value: Tensor, grad: Tensor, state: State, options: Options) -> Tensor:
        """The parameter's next value, of the same type; sets the state's."""
        raise GraphError(f"{type(self).__name__} defines no update")

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        only_if: Tensor | None = None,
        grad_scale: Tensor | float | None = None,
    ) -> Any:
        """Update every parameter that has a gradient; returns what ``closure``, called first, returns.

        Where ``only_if``, bool[], is false, nothing changes: neither parameters nor state. Gradients are divided by
        ``grad_scale``, in the dtype of the state.
        """
        loss = None
        if closure is not None:
            with context.enable_grad():
                loss = closure()
        guard(lambda: tuple(len(group["params"]) for group in self.param_groups))
        with context.no_grad():
            for group in self.param_groups:
                options = Options(group, self._count)
                for parameter in group["params"]:
                    self._step(parameter, options, only_if, grad_scale)
            if self.steps is not None:
                steps: Tensor = as_number(self.steps)
                self.steps.assign(steps + (1 if only_if is None else ops.astype(only_if, types.float64)))
        if context.TRACE.get() is None:
            self.param_groups[0]["params"][0].session.flush()
        return loss

    def _step(
        self, parameter: Variable, options: Options, only_if: Tensor | None, grad_scale: Tensor | float | None
    ) -> None:
        grad = parameter.grad
        if grad is None:
            return
        variables = self.state[id(parameter)]
        target = variables.get("master", parameter)
        before = [] if only_if is None else [(v, v.detach()) for v in (parameter, *variables.values())]
        grad = ops.astype(grad, target.dtype)
        grad = grad if grad_scale is None else grad * (1 / grad_scale)
        new = self.update(target, -grad if options.flag("maximize") else grad, State(variables), options)
        target.assign(new)
        if target is not parameter:
            parameter.assign(ops.astype(new, parameter.dtype))
        for variable, old in before:
            assert only_if is not None
            variable.assign(ops.where(only_if, variable, old))

    def gradients_are_finite(self) -> Tensor:
        """Whether no gradient holds an infinity or NaN, bool[]."""
        with context.no_grad():
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            verdicts = [ops.all(ops.isfinite(grad)) for grad in grads]
            return ops.all(ops.stack(verdicts)) if verdicts else full((), True, dtype=types.bool_)

    def _count(self) -> Tensor:
        if self.steps is None:
            if context.TRACE.get() is not None:
                raise GraphError("a schedule came after the optimizer was made: take one step outside tg.function")
            self.steps = Variable(full((), 0.0, dtype=types.float64), name="optimizer.steps")
        return as_number(self.steps)

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

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """Options and state, by the position of each parameter, as NumPy arrays.

        A schedule is saved as what it holds; "steps" is there if there is a schedule.
        """
        state: dict[int, dict[str, Any]] = {}
        groups: list[Group] = []
        number = 0
        for group in self.param_groups:
            numbers: list[int] = []
            for parameter in group["params"]:
                state[number] = {name: v.numpy() for name, v in self.state[id(parameter)].items()}
                numbers.append(number)
                number += 1
            options = {k: _schedule_state(v) if callable(v) else v for k, v in group.items()}
            groups.append({**options, "params": numbers})
        steps = {} if self.steps is None else {"steps": self.steps.numpy()}
        return {"state": state, "param_groups": groups, **steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state; PyTorch's of the same optimizer will do. Options unknown here are left out.

        Schedules are code: the optimizer keeps those it was made with and takes over what they hold.
        Raises GraphError if groups, names of state or schedules do not fit.
        """
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise GraphError("load_state_dict: the parameter groups have other sizes")
        if self.steps is not None:
            require("steps" in state_dict, "load_state_dict: a schedule needs the count of steps, which was not saved")
        known = [self.state[id(parameter)] for group in self.param_groups for parameter in group["params"]]
        given = [state_dict["state"].get(number, {}) for number in range(len(known))]
        for number, (own, saved) in enumerate(zip(known, given, strict=True)):
            fits = own.keys() == saved.keys()
            require(fits, f"load_state_dict: state {number} has {sorted(saved)}, needed are {sorted(own)}")
        for group, saved in zip(self.param_groups, groups, strict=True):
            for name in saved.keys() & self.defaults.keys():
                _load_option(group, name, saved[name])
        for own, saved in zip(known, given, strict=True):
            for name, variable in own.items():
                variable.assign(np.asarray(saved[name]))
        if self.steps is not None:
            self.steps.assign(np.asarray(state_dict["steps"]))
        context.current_session().flush()


def _schedule_state(schedule: Any) -> dict[str, Any]:
    return {"schedule": schedule.state_dict() if hasattr(schedule, "state_dict") else {}}


def _load_option(group: Group, name: str, saved: Any) -> None:
    is_schedule = isinstance(saved, Mapping)
    if not callable(group[name]):
        require(not is_schedule, f"load_state_dict: {name} was a schedule; make the optimizer with the same one")
        group[name] = saved
    elif is_schedule and hasattr(group[name], "load_state_dict"):
        group[name].load_state_dict(saved["schedule"])
