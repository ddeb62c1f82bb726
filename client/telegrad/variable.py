"""Variable: a place on the server whose value changes by versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from telegrad import context
from telegrad.creation import asarray
from telegrad.errors import DTypeError, GraphError, ShapeError, TraceError
from telegrad.ir.types import Type
from telegrad.ir.value import Number, Value
from telegrad.lazy import GradientPoint, Handle, Leaf, Line, Version, caller
from telegrad.ops import elementwise
from telegrad.ops.control import Alias, StopGradient
from telegrad.tensor import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt


class Variable(Tensor):
    """A place on the server with versions. Using it reads the version at that point of the program.

    ``assign`` makes the next version. Parameters, running statistics and optimiser state are variables.
    """

    __slots__ = ("_handle", "leaf", "name", "updated_at", "version", "worker")

    def __init__(self, value: Tensor | npt.ArrayLike, *, name: str | None = None, requires_grad: bool = False) -> None:
        if context.TRACE.get() is not None:
            raise TraceError("a variable cannot be made while a function is traced; make it before the call")
        tensor = value if isinstance(value, Tensor) else asarray(value)
        on = context.ON.get()
        self.worker = on.worker if on is not None else None
        if on is not None:
            tensor = on.hold(tensor)
        if requires_grad and not tensor.dtype.is_float:
            raise DTypeError(f"only floating-point variables have gradients, not {tensor.type}")
        session = tensor.session
        super().__init__(tensor.value, session, session.scopes.current, requires_grad=requires_grad)
        self.name = name
        self.version = 0
        self.updated_at: Line | None = None
        self._handle = session.new_variable(self, tensor)
        session.commands.variables[self._handle.name] = self
        self.read_version()

    def read_version(self) -> None:
        """Let reads mean the version that the server will hold once everything sent has run."""
        before = self._value.node
        leaf = Leaf(
            self._value.type,
            Version(self, self.version),
            tensor=ref(self) if self._requires_grad else None,
            like=before if isinstance(before, Leaf) else None,
        )
        self.leaf = self._value = Value(leaf)

    @property
    def handle(self) -> Handle:
        """The variable's name on the server."""
        return self._handle

    @property
    def value(self) -> Value:
        trace = context.TRACE.get()
        return super().value if trace is None else trace.value_of(self)

    @property
    def type(self) -> Type:  # type: ignore[override]
        """The shape and dtype, which never change."""
        return self._value.type

    def _change(self, new: Tensor) -> None:
        if self._requires_grad and context.GRADIENTS.get():
            raise GraphError(
                f"{self.describe()} requires a gradient and cannot change in place: the gradient would be that of"
                " another value; change it inside tg.no_grad(), or use assign"
            )
        self.assign(new)

    def fresh(self) -> Tensor:
        """The present version as a tensor of its own."""
        return Alias()(self)

    def describe(self) -> str:
        """The variable in words, for messages."""
        return f"variable {self.name!r}" if self.name else f"a variable of type {self.type}"

    def assign(self, value: Tensor | Number | npt.ArrayLike) -> None:
        """Make ``value`` the next version. No gradient flows through an assignment.

        Raises ShapeError or DTypeError if the type is not the variable's own, TraceError in a branch, in the body of
        `while_loop`, `vmap` or `custom_vjp`, and for a parameter in any body.
        """
        region, assigned = context.REGION.get(), (context.ASSIGNED.get() or (None,))[-1]
        if region is not None and (assigned is None or self._requires_grad):
            raise TraceError(
                f"{self.describe()} cannot be assigned in a branch, or in the body of while_loop, vmap or custom_vjp, "
                "and a parameter in no body; return the value and assign it outside"
            )
        tensor = value if isinstance(value, Tensor) else asarray(value, dtype=self.dtype)
        if tensor.is_weak:
            tensor = elementwise.astype(tensor, self.dtype)
        if tensor.dtype is not self.dtype:
            raise DTypeError(f"{self.describe()} is {self.type} and cannot become {tensor.type}; use astype")
        if tensor.shape != self.shape:
            raise ShapeError(f"{self.describe()} is {self.type} and cannot become {tensor.type}")
        home = context.TRACE.get() or self._home
        new = StopGradient()(home.value_of(tensor))
        if region is not None and assigned is not None:
            region.append(new.node)
            assigned[self] = new
            return
        if self._requires_grad:
            new = Value(GradientPoint(new, ref(self)))
        home.assign(self, new, caller())

    def __deepcopy__(self, memo: dict[int, Any]) -> Variable:
        """Another variable with this one's present value, so that ``copy.deepcopy`` copies a module."""
        from telegrad.parts import beside

        with beside(self):
            return type(self)(self.detach(), name=self.name, requires_grad=self._requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Let backward give this variable a gradient, or not."""
        if requires_grad and not self.dtype.is_float:
            raise DTypeError(f"only floating-point variables have gradients, not {self.type}")
        if requires_grad != self._requires_grad:
            self.session.flush()
            self._requires_grad = requires_grad
            self.read_version()
        return self


class Parameter(Variable):
    """A variable that a model learns: it requires a gradient."""

    __slots__ = ()

    def __init__(self, data: Tensor | npt.ArrayLike, requires_grad: bool = True, *, name: str | None = None) -> None:
        super().__init__(data, name=name, requires_grad=requires_grad)
