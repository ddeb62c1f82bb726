"""Tensor: a handle on a value. Variable: a place on the server whose value changes by versions.

A tensor computes nothing by itself. Operators and functions build graph values; a read (``numpy()``,
``item()``, ``print``), a function call, ``optimizer.step()`` or the end of a scope sends what is pending.
The methods follow NumPy and PyTorch, which agree on most of them; the functions are in `telegrad.ops`.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from telegrad import context, ops
from telegrad.errors import DTypeError, GraphError, ShapeError, TraceError
from telegrad.ir.graph import Graph
from telegrad.ir.op import Op
from telegrad.ir.types import DType, Type
from telegrad.ir.value import Number, Operators, Value, apply
from telegrad.lazy import GradientPoint, Handle, Leaf, Line, Version, caller, gradient_points, show
from telegrad.ops import elementwise, indexing
from telegrad.ops.control import Gradient, StopGradient, stop_gradient

if TYPE_CHECKING:
    import numpy.typing as npt

    from telegrad.function import Trace
    from telegrad.scope import Scope
    from telegrad.session import Session


class Tensor(Operators):
    """An array on the server, or the promise of one. Made by `asarray`, by functions and by operators.

    ``requires_grad`` says whether ``backward()`` of something computed from it gives it a ``grad``.
    """

    __slots__ = ("__weakref__", "_grad", "_home", "_requires_grad", "_scope", "_value", "_weak")

    def __init__(
        self, value: Value, home: Session | Trace, scope: Scope, *, requires_grad: bool = False, weak: bool = False
    ) -> None:
        self._value = value
        self._home = home
        self._scope = scope
        self._requires_grad = requires_grad
        self._weak = weak
        self._grad: Tensor | None = None

    # ---- what it is

    @property
    def type(self) -> Type:  # type: ignore[override]
        """The shape and dtype."""
        return self._value.type

    @property
    def value(self) -> Value:
        """The graph value that this handle stands for."""
        if self._scope.is_closed:
            raise self._scope.refusal(self.type)
        return self._value

    @property
    def session(self) -> Session:
        """The session that the tensor belongs to."""
        return self._home.session

    @property
    def is_weak(self) -> bool:
        return self._weak

    @property
    def T(self) -> Tensor:
        """The transpose of a matrix."""
        if self.ndim != 2:
            raise ShapeError(f".T takes a matrix, not {self.type}; use .mT for a stack of matrices")
        return ops.matrix_transpose(self)

    @property
    def mT(self) -> Tensor:
        """The transpose of the last two axes."""
        return ops.matrix_transpose(self)

    @property
    def device(self) -> str:
        """Where the tensor lives."""
        return self.session.backend

    def to_device(self, device: str, /, *, stream: object = None) -> Tensor:
        """The tensor itself; each session has one device."""
        if device != self.device:
            raise GraphError(f"this session's device is {self.device!r}, not {device!r}")
        return self

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules["telegrad"]

    # ---- building graphs

    def bind(self, op: Op, inputs: Sequence[Any], regions: Sequence[Graph] = ()) -> tuple[Any, ...]:
        home = context.TRACE.get() or self._home
        outputs = apply(op, [home.value_of(x) for x in inputs], regions, origin=caller())
        region = context.REGION.get()
        if region is not None:
            region.append(outputs[0].node)
        wants, weak = False, bool(inputs)
        for x in inputs:
            wants = wants or x._requires_grad
            weak = weak and x._weak
        cls = op.__class__
        if cls is StopGradient:
            wants = False
        elif wants and not context.GRADIENTS.get():
            outputs, wants = tuple([StopGradient()(v) for v in outputs]), False
            if region is not None:
                region += [v.node for v in outputs]
        if cls is elementwise.Cast:
            weak = False
        if len(outputs) == 1:
            (v,) = outputs
            return (home.tensor(v, requires_grad=wants and v.type.dtype.is_float, weak=weak),)
        return tuple([home.tensor(v, requires_grad=wants and v.type.dtype.is_float, weak=weak) for v in outputs])

    def literal(self, number: Number, dtype: DType) -> Tensor:
        home = context.TRACE.get() or self._home
        literal = home.number(number, dtype)
        literal._weak = self._weak
        return literal

    # ---- reading

    def numpy(self, *, timeout_seconds: float | None = None) -> npt.NDArray[Any]:
        """The elements as a NumPy array of the caller's own. Waits for the server, at most ``timeout_seconds``.

        Raises the error of the op that failed, if one did, TimedOut, and TraceError inside `tg.function`.
        """
        self._refuse_in_trace("read")
        return self.session.fetch(self, timeout_seconds=timeout_seconds)

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() takes a tensor of one element, not {self.type}; use numpy()")
        return self.numpy().reshape(()).item()

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def _number(self, kind: str) -> Any:
        self._refuse_in_trace(f"used as a Python {kind}")
        if self.ndim != 0:
            raise builtins.TypeError(f"only a 0-d tensor can become a Python {kind}, not {self.type}")
        return self.item()

    def __bool__(self) -> bool:
        return bool(self._number("bool"))

    def __float__(self) -> float:
        return float(self._number("float"))

    def __int__(self) -> int:
        return int(self._number("int"))

    def __complex__(self) -> complex:
        return complex(self._number("complex"))

    def __index__(self) -> int:
        self._refuse_in_trace("used as an index")
        if self.dtype.kind not in ("int", "uint"):
            raise builtins.TypeError(f"only an integer tensor can be an index, not {self.type}")
        return int(self._number("int"))

    def _refuse_in_trace(self, what: str) -> None:
        if context.TRACE.get() is not None or self._home.is_trace or context.REGION.get() is not None:
            raise TraceError(
                f"a tensor ({self.type}) was {what} while a function is traced, at {show(caller())}; its value is not"
                " known yet: use tg.where to choose, or return the tensor and read it outside"
            )

    def __len__(self) -> int:
        if self.ndim == 0:
            raise builtins.TypeError("a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise builtins.TypeError("a 0-d tensor cannot be iterated")
        return (self[i] for i in range(self.shape[0]))

    def __repr__(self) -> str:
        if context.TRACE.get() is not None or self._home.is_trace or context.REGION.get() is not None:
            return f"<traced {self.type}>"
        if self._scope.is_closed:
            return f"<freed {self.type}>"
        import numpy

        extra = ", requires_grad=True" if self._requires_grad else ""
        body = numpy.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=64)
        return f"tensor({body}, shape={self.shape}, dtype={self.dtype}, device='{self.device}'{extra})"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        if isinstance(other, (Tensor, bool, int, float)):
            return elementwise.equal(self, other)
        return NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        if isinstance(other, (Tensor, bool, int, float)):
            return elementwise.not_equal(self, other)
        return NotImplemented

    def __rmatmul__(self, other: Tensor) -> Tensor:
        return ops.matmul(other, self)

    def __getitem__(self, key: Any) -> Tensor:
        """x[key] with ints, slices, None, ... and integer tensors, arrays or lists, by NumPy's rules."""
        return indexing.getitem(self, _key(key))

    def __setitem__(self, key: Any, new: Tensor | Number) -> None:
        """Rebind this handle to a copy with the selected elements replaced; other handles do not change."""
        self._rebind(indexing.set_items(self, _key(key), new))

    def _rebind(self, other: Tensor) -> None:
        self._value, self._requires_grad, self._weak = other._value, other._requires_grad, other._weak
        self._home.watch(self)

    # ---- gradients

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted for, or flow through, this tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Make this tensor a leaf that receives a gradient (or not); returns it."""
        if requires_grad and not self.dtype.is_float:
            raise DTypeError(f"only floating-point tensors have gradients, not {self.type}")
        if requires_grad and not self._requires_grad:
            self._value = Value(GradientPoint(self.value, ref(self)))
            self._home.watch(self)
        elif not requires_grad and self._requires_grad:
            self._rebind(self.detach())
        self._requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether a backward ends here."""
        node = self._value.node
        return not self._requires_grad or (isinstance(node, (Leaf, GradientPoint)) and node.tensor is not None)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward passes have added up here, or None."""
        trace = context.TRACE.get()
        return trace.grad_of(self) if trace is not None else self._grad

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:
        if grad is not None and grad.type != self.type:
            raise ShapeError(f"the gradient of a {self.type} must be a {self.type}, not {grad.type}")
        trace = context.TRACE.get()
        if trace is not None:
            trace.set_grad(self, grad)
        else:
            self._grad = grad

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """Another handle on the value, a leaf as PyTorch's copies are."""
        return self.detach().requires_grad_(self._requires_grad)

    def detach(self) -> Tensor:
        """The same value as a constant: no gradient flows through it."""
        return stop_gradient(self)

    def backward(self, gradient: Tensor | None = None) -> None:
        """Add d(self)/d(leaf) to ``grad`` of every leaf that requires it.

        ``gradient`` is the cotangent, of self's shape; it may be left out for a scalar.
        Raises GraphError if nothing requires a gradient, VariableChanged if a variable was updated since.
        """
        if gradient is None and self.size != 1:
            raise ShapeError(f"backward() of {self.type} needs the argument gradient; only of one element it is 1")
        points = gradient_points([self.value]) if self._requires_grad else []
        if not points:
            raise GraphError(
                "backward() found no tensor that requires a gradient; set requires_grad on a leaf, or check for detach"
                " and no_grad on the way"
            )
        seed = ops.ones_like(self) if gradient is None else gradient
        home = context.TRACE.get() or self._home
        wanted = [home.tensor(value, requires_grad=True) for value, _ in points]
        with context.no_grad():
            found = Gradient(1).results(self, seed, *wanted)
            for (_, leaf), g in zip(points, found, strict=True):
                known = leaf.grad
                leaf.grad = g if known is None else known + g

    # ---- methods with NumPy's and PyTorch's names

    def astype(self, dtype: DType, /, *, copy: bool = True) -> Tensor:
        """The elements converted to another dtype."""
        return elementwise.astype(self, dtype)

    def to(self, dtype: DType) -> Tensor:
        """The elements converted to another dtype."""
        return elementwise.astype(self, dtype)

    def clone(self) -> Tensor:
        """The same value under another handle; gradients flow through it."""
        return self + 0 if self.dtype.kind != "bool" else elementwise.logical_or(self, False)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements under another shape; one size may be -1."""
        return ops.reshape(self, _ints(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes ``start_dim`` to ``end_dim`` joined into one."""
        return ops.flatten(self, start_dim, end_dim)

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Without axes of size 1: all of them, or those named."""
        if dim is None:
            dim = tuple(i for i, size in enumerate(self.shape) if size == 1)
        return ops.squeeze(self, dim if isinstance(dim, int) else tuple(dim))

    def unsqueeze(self, dim: int) -> Tensor:
        """With a new axis of size 1 at ``dim``."""
        return ops.expand_dims(self, axis=dim)

    def permute(self, *dims: int | Sequence[int]) -> Tensor:
        """The axes in another order."""
        return ops.permute_dims(self, _ints(dims))

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """Two axes swapped (PyTorch), or all axes in a new order, reversed if none is given (NumPy)."""
        order = _ints(axes) if axes else tuple(reversed(range(self.ndim)))
        if len(order) == 2 and self.ndim != 2:
            swapped = list(range(self.ndim))
            i, j = order[0] % self.ndim, order[1] % self.ndim
            swapped[i], swapped[j] = j, i
            order = tuple(swapped)
        return ops.permute_dims(self, order)

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        """Broadcast to a shape; -1 keeps a size."""
        wanted = _ints(shape)
        lead = len(wanted) - self.ndim
        return ops.broadcast_to(
            self, tuple(self.shape[i - lead] if size == -1 else size for i, size in enumerate(wanted))
        )

    def sum(
        self, axis: int | Sequence[int] | None = None, dtype: DType | None = None, keepdims: bool = False
    ) -> Tensor:
        """The sum over axes."""
        return ops.sum(self, axis=_axes(axis), dtype=dtype, keepdims=keepdims)

    def prod(
        self, axis: int | Sequence[int] | None = None, dtype: DType | None = None, keepdims: bool = False
    ) -> Tensor:
        """The product over axes."""
        return ops.prod(self, axis=_axes(axis), dtype=dtype, keepdims=keepdims)

    def mean(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """The mean over axes."""
        return ops.mean(self, axis=_axes(axis), keepdims=keepdims)

    def var(self, axis: int | Sequence[int] | None = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """The variance over axes, divided by n - correction."""
        return ops.var(self, axis=_axes(axis), correction=correction, keepdims=keepdims)

    def std(self, axis: int | Sequence[int] | None = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """The standard deviation over axes, from the variance with n - correction."""
        return ops.std(self, axis=_axes(axis), correction=correction, keepdims=keepdims)

    def max(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """The largest element over axes."""
        return ops.max(self, axis=_axes(axis), keepdims=keepdims)

    def min(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """The smallest element over axes."""
        return ops.min(self, axis=_axes(axis), keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The position of the first largest element."""
        return ops.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The position of the first smallest element."""
        return ops.argmin(self, axis=axis, keepdims=keepdims)

    def any(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """Whether any element is true."""
        return ops.any(self, axis=_axes(axis), keepdims=keepdims)

    def all(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        """Whether all elements are true."""
        return ops.all(self, axis=_axes(axis), keepdims=keepdims)

    def matmul(self, other: Tensor) -> Tensor:
        """The matrix product."""
        return ops.matmul(self, other)

    def exp(self) -> Tensor:
        """e**x."""
        return elementwise.exp(self)

    def log(self) -> Tensor:
        """The natural logarithm."""
        return elementwise.log(self)

    def sqrt(self) -> Tensor:
        """The square root."""
        return elementwise.sqrt(self)

    def abs(self) -> Tensor:
        """|x|."""
        return elementwise.abs(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return elementwise.tanh(self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return elementwise.sigmoid(self)

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return elementwise.relu(self)

    def softmax(self, dim: int = -1) -> Tensor:
        """exp(x) over its sum along ``dim``."""
        return ops.softmax(self, axis=dim)

    def clip(self, min: Tensor | Number | None = None, max: Tensor | Number | None = None) -> Tensor:
        """x limited to [min, max]."""
        return elementwise.clip(self, min, max)


class Variable(Tensor):
    """A place on the server with versions. Using it reads the version at that point of the program.

    ``assign`` makes the next version. Parameters, running statistics and optimiser state are variables.
    """

    __slots__ = ("_handle", "leaf", "name", "updated_at", "version")

    def __init__(self, value: Tensor | npt.ArrayLike, *, name: str | None = None, requires_grad: bool = False) -> None:
        from telegrad.creation import asarray

        if context.TRACE.get() is not None:
            raise TraceError("a variable cannot be made while a function is traced; make it before the call")
        tensor = value if isinstance(value, Tensor) else asarray(value)
        if requires_grad and not tensor.dtype.is_float:
            raise DTypeError(f"only floating-point variables have gradients, not {tensor.type}")
        session = tensor.session
        super().__init__(tensor.value, session, session.scopes.current, requires_grad=requires_grad)
        self.name = name
        self.version = 0
        self.updated_at: Line | None = None
        self._handle = session.new_variable(self, tensor)
        self.read_version()

    def read_version(self) -> None:
        """Let reads mean the version that the server will hold once everything sent has run."""
        leaf = Leaf(self._value.type, Version(self, self.version), tensor=ref(self) if self._requires_grad else None)
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

    def describe(self) -> str:
        """The variable in words, for messages."""
        return f"variable {self.name!r}" if self.name else f"a variable of type {self.type}"

    def assign(self, value: Tensor | Number | npt.ArrayLike) -> None:
        """Make ``value`` the next version. No gradient flows through an assignment.

        Raises ShapeError or DTypeError if the type is not the variable's own, TraceError in a branch, in the body of
        `while_loop`, `vmap` or `custom_vjp`, and for a parameter in any body.
        """
        from telegrad.creation import asarray

        region, assigned = context.REGION.get(), (context.ASSIGNED.get() or (None,))[-1]
        if region is not None and (assigned is None or self._requires_grad):
            raise TraceError(
                f"{self.describe()} cannot be assigned in a branch, or in the body of while_loop, vmap or custom_vjp, "
                "and a parameter in no body; return the value and assign it outside"
            )
        tensor = value if isinstance(value, Tensor) else asarray(value, dtype=self.dtype)
        if tensor._weak:
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


def _key(key: Any) -> Any:
    """The key with arrays and lists of integers as tensors."""
    parts = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(p, list) or (hasattr(p, "dtype") and not isinstance(p, Tensor)) for p in parts):
        return key
    from telegrad.creation import asarray

    def part(p: Any) -> Any:
        if isinstance(p, list):
            return asarray(p) if p else asarray(p, dtype=sys.modules["telegrad"].int64)
        return asarray(p) if hasattr(p, "dtype") and hasattr(p, "shape") and p.shape != () else p

    return tuple(part(p) for p in parts) if isinstance(key, tuple) else part(key)


def _ints(values: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) alike."""
    if len(values) == 1 and not isinstance(values[0], int):
        return tuple(values[0])
    return tuple(int(v) for v in values)  # type: ignore[arg-type]


def _axes(axis: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    return axis if axis is None or isinstance(axis, int) else tuple(axis)
