"""Module: a tree of parameters, buffers and modules, with PyTorch's names and state keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from telegrad import context
from telegrad.errors import GraphError, ShapeError
from telegrad.function import guard
from telegrad.ops.elementwise import astype
from telegrad.tensor import Tensor
from telegrad.variable import Parameter, Variable


class Buffer(Variable):
    """A variable that a module holds and does not learn; it is saved with the module unless ``persistent`` is false."""

    __slots__ = ("persistent",)

    def __init__(
        self,
        data: Tensor | npt.ArrayLike,
        *,
        persistent: bool = True,
        name: str | None = None,
        requires_grad: bool = False,
    ) -> None:
        super().__init__(data, name=name, requires_grad=requires_grad)
        self.persistent = persistent


class Module:
    """A part of a model. Assign parameters, variables and modules as attributes, and define ``forward``.

    ::

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.hidden = nn.Linear(64, 128)
                self.out = nn.Linear(128, 10)

            def forward(self, x):
                return self.out(self.hidden(x).relu())
    """

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter | None]
        object.__setattr__(self, "_parameters", {})
        object.__setattr__(self, "_buffers", {})
        object.__setattr__(self, "_modules", {})
        object.__setattr__(self, "_derived", {})
        object.__setattr__(self, "_transient", set())
        object.__setattr__(self, "_training", True)

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Variable | None]
    _modules: dict[str, Module | None]
    _derived: dict[str, Callable[[Module], Tensor]]
    """Attributes that are computed from others whenever they are read: see `nn.utils.parametrize`."""
    _transient: set[str]
    """Buffers that are not saved."""
    _training: bool

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's result on its inputs; to be defined."""
        raise GraphError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # ---- attributes

    def __setattr__(self, name: str, value: Any) -> None:
        registries = (self._parameters, self._buffers, self._modules) if "_modules" in self.__dict__ else None
        if registries is None and isinstance(value, (Variable, Module)):
            raise GraphError(f"call super().__init__() before assigning {name}")
        if name in self.__dict__.get("_derived", {}):
            raise GraphError(f"{name} is computed from other parameters; assign to those, or remove what computes it")
        for registry in registries or ():
            registry.pop(name, None)
        if isinstance(value, Parameter):
            self._name(value, name)
            self._parameters[name] = value
        elif isinstance(value, Variable):
            is_saved = value.persistent if isinstance(value, Buffer) else name not in self._transient
            self.register_buffer(name, value, is_saved)
        elif isinstance(value, Module):
            self.add_module(name, value)
        else:
            object.__setattr__(self, name, value)

    def _name(self, variable: Variable, name: str) -> None:
        if variable.name is None:
            variable.name = name

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry, {})
            if name in found:
                return found[name]
        if name in (derived := self.__dict__.get("_derived", {})):
            return derived[name](self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                return
        object.__delattr__(self, name)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """A parameter under a name, or the note that there is none."""
        self.__dict__.pop(name, None)
        if param is not None:
            self._name(param, name)
        self._parameters[name] = param

    def register_buffer(
        self, name: str, tensor: Variable | Tensor | npt.ArrayLike | None, persistent: bool = True
    ) -> None:
        """State that is not learnt, such as running statistics; it is saved unless ``persistent`` is false."""
        if tensor is not None and not isinstance(tensor, Variable):
            tensor = Variable(tensor)
        if tensor is not None:
            self._name(tensor, name)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """A child under a name. Its variables are called by it too, unless they had names before."""
        if module is not None and all(below is not self for below in module.modules()):  # not a way back to a parent
            for below, variable in [*module.named_parameters(), *module.named_buffers()]:
                if variable.name == below:
                    variable.name = f"{name}.{below}"
        self._modules[name] = module

    # ---- the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The children by name."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        """The children."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below, each once, by dotted name."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            stack += [(f"{name}.{n}" if name else n, child) for n, child in reversed(list(module.named_children()))]

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        return (module for _, module in self.named_modules())

    def _named(self, registry: str) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, variable in getattr(module, registry).items():
                if variable is not None and id(variable) not in seen:
                    seen.add(id(variable))
                    yield (f"{prefix}.{name}" if prefix else name), variable

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters by dotted name, each once."""
        return self._named("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Variable]]:
        """The buffers by dotted name, each once."""
        return self._named("_buffers")

    def buffers(self) -> Iterator[Variable]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers())

    def apply(self, function: Callable[[Module], None]) -> Module:
        """Call ``function`` on every module below and on this one; returns this module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    # ---- mode

    @property
    def training(self) -> bool:
        """Whether the module is in training mode; reading it in a traced function makes it part of the signature."""
        return guard(lambda: self._training)

    def train(self, mode: bool = True) -> Module:
        """Set training mode here and in every module below."""
        for module in self.modules():
            object.__setattr__(module, "_training", mode)
        return self

    def eval(self) -> Module:
        """Set evaluation mode here and in every module below."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Let all parameters receive gradients, or none."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # ---- state

    def state_dict(self) -> OrderedDict[str, npt.NDArray[Any]]:
        """Parameters and buffers by dotted name, as NumPy arrays of the caller's own."""
        return OrderedDict((name, variable.numpy()) for name, variable in self._state())

    def _state(self, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        """What is saved. A module or variable with several names is there under each, as in PyTorch."""
        for registry in (self._parameters, self._buffers):
            for name, variable in registry.items():
                if variable is not None and not (registry is self._buffers and name in self._transient):
                    yield f"{prefix}{name}", variable
        for name, module in self.named_children():
            yield from module._state(f"{prefix}{name}.")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Assign parameters and buffers by name, from arrays or tensors.

        Raises GraphError if names are missing or unknown (unless ``strict`` is false), ShapeError before anything is
        assigned if a shape does not fit.
        """
        known = dict(self._state())
        missing, unknown = sorted(known.keys() - state_dict.keys()), sorted(state_dict.keys() - known.keys())
        if strict and (missing or unknown):
            raise GraphError(f"load_state_dict: missing keys {missing}, unexpected keys {unknown}")
        chosen = {name: state_dict[name] for name in known if name in state_dict}
        for name, value in chosen.items():
            shape = tuple(np.shape(value) if not isinstance(value, Tensor) else value.shape)
            if shape != known[name].shape:
                raise ShapeError(f"load_state_dict: {name} has shape {list(known[name].shape)}, given is {list(shape)}")
        for name, value in chosen.items():
            variable = known[name]
            variable.assign(astype(value, variable.dtype) if isinstance(value, Tensor) else np.asarray(value))
        context.current_session().flush()

    # ---- printing

    def extra_repr(self) -> str:
        """What ``repr`` says of the module itself."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(children) + "\n)"
