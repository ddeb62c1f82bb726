"""A parameter computed from others: its parametrization is a module, and runs whenever the parameter is read.

As in PyTorch, what is learnt and saved is ``parametrizations.weight.original`` (or ``original0``, ``original1``, …),
and ``module.weight`` is the result. PyTorch changes the module's class for it; here the module notes what computes the
name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from telegrad import context
from telegrad.errors import GraphError, ShapeError
from telegrad.nn.container import ModuleDict
from telegrad.nn.module import Module
from telegrad.tensor import Tensor
from telegrad.variable import Parameter, Variable


class ParametrizationList(Module):
    """The originals of one parameter, and the modules that make it of them, one after the other."""

    def __init__(self, original: Variable, parametrization: Module) -> None:
        super().__init__()
        self.count = 0
        parts = _inverse(parametrization, original)
        if isinstance(parts, tuple):
            self.number_of_originals: int | None = len(parts)
            for i, part in enumerate(parts):
                self._register(f"original{i}", _like(original, part))
        else:
            self.number_of_originals = None
            if parts is not original:
                original.assign(parts)
            self._register("original", original)  # the same variable, so that an optimizer still knows it
        self.append(parametrization)

    def _register(self, name: str, variable: Variable) -> None:
        if isinstance(variable, Parameter):
            self.register_parameter(name, variable)
        else:
            self.register_buffer(name, variable)

    def append(self, parametrization: Module) -> None:
        """One more module behind the others."""
        self.add_module(str(self.count), parametrization)
        self.count += 1

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Module]:
        return (getattr(self, str(i)) for i in range(self.count))

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def originals(self) -> list[Variable]:
        """What the parameter is computed from."""
        if self.number_of_originals is None:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.number_of_originals)]

    def right_inverse(self, value: Tensor) -> None:
        """Assign originals that give ``value``, as far as the parametrizations can."""
        parts: Tensor | tuple[Tensor, ...] = value
        for parametrization in reversed(list(self)):
            if isinstance(parts, tuple):
                raise GraphError("right_inverse: only the first parametrization may have several originals")
            parts = _inverse(parametrization, parts)
        for variable, part in zip(self.originals(), parts if isinstance(parts, tuple) else (parts,), strict=True):
            variable.assign(part)

    def forward(self) -> Tensor:
        """The parameter."""
        first, *others = self
        value = first(*self.originals())
        for other in others:
            value = other(value)
        return value


@dataclass(frozen=True)
class Parametrized:
    """Reads a parameter by its parametrizations."""

    name: str

    def __call__(self, module: Module) -> Tensor:
        return module.parametrizations[self.name]()


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let ``parametrization`` compute a parameter or buffer of ``module`` from now on; returns the module.

    The present value becomes the original, through the method ``right_inverse`` where there is one, which may return
    several originals. Further parametrizations are applied to the result of those before. ShapeError if the result has
    another shape or dtype than the parameter, unless ``unsafe``.
    """
    parametrization.train(module._training)
    if is_parametrized(module, tensor_name):
        chain = cast(ParametrizationList, module.parametrizations[tensor_name])
        value = getattr(module, tensor_name)
        if hasattr(parametrization, "right_inverse"):
            with context.no_grad():
                inverse = _inverse(parametrization, value)
                if isinstance(inverse, tuple):
                    raise GraphError("register_parametrization: only the first one may have several originals")
                chain.right_inverse(inverse)
        chain.append(parametrization)
    else:
        registries = (module._parameters, module._buffers)
        found = next((r[tensor_name] for r in registries if r.get(tensor_name) is not None), None)
        if found is None:
            raise GraphError(f"register_parametrization: {type(module).__name__} has no parameter {tensor_name!r}")
        value: Tensor = found
        with context.no_grad():
            chain = ParametrizationList(found, parametrization)
        delattr(module, tensor_name)
        if "parametrizations" not in module._modules:
            module.parametrizations = ModuleDict()
        module.parametrizations[tensor_name] = chain
        module._derived[tensor_name] = Parametrized(tensor_name)
    if not unsafe:
        result = chain()
        if result.type != value.type:
            raise ShapeError(
                f"register_parametrization: {tensor_name} would be {result.type} in place of {value.type}; return the"
                " same, or say unsafe=True"
            )
    return module


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Let the parameter be one again, with the value that it has, or else that of its original; returns the module."""
    if not is_parametrized(module, tensor_name):
        raise GraphError(f"remove_parametrizations: {tensor_name!r} of {type(module).__name__} has none")
    chain = cast(ParametrizationList, module.parametrizations[tensor_name])
    original = chain.originals()[0]
    if chain.number_of_originals is not None and not leave_parametrized:
        raise GraphError("remove_parametrizations: of several originals none is the parameter; leave_parametrized=True")
    if leave_parametrized:
        with context.no_grad():
            value = chain()
        if chain.number_of_originals is None and original.type == value.type:
            original.assign(value)
        else:
            original = _like(original, value)
    del module._derived[tensor_name]
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
    setattr(module, tensor_name, original)
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a parameter of the module, or any, is computed by parametrizations."""
    if tensor_name is None:
        return any(isinstance(derived, Parametrized) for derived in module._derived.values())
    return isinstance(module._derived.get(tensor_name), Parametrized)


def _inverse(parametrization: Module, value: Tensor) -> Tensor | tuple[Tensor, ...]:
    inverse = getattr(parametrization, "right_inverse", None)
    found = value if inverse is None else inverse(value)
    return tuple(found) if isinstance(found, (tuple, list)) else found


def _like(original: Variable, value: Tensor) -> Variable:
    """A new variable of the original's kind."""
    value = value.detach()
    return Parameter(value, original.requires_grad) if isinstance(original, Parameter) else Variable(value)
