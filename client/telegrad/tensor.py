"""Tensor: a handle on a value.

A tensor computes nothing by itself. Operators and functions build graph values; a read (``numpy()``,
``item()``, ``print``), a function call, ``optimizer.step()`` or the end of a scope sends what is pending.
The methods with NumPy's and PyTorch's names are a table in `telegrad.methods`; the functions are in `telegrad.ops`.
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
from telegrad.ir.types import DType, Type, int64
from telegrad.ir.value import Number, Value, apply
from telegrad.later import item_async
from telegrad.lazy import GradientPoint, Leaf, caller, gradient_points, show
from telegrad.methods import Methods
from telegrad.ops import elementwise, indexing
from telegrad.ops.control import Gradient, StopGradient, stop_gradient

if TYPE_CHECKING:
    import numpy.typing as npt

    from telegrad.function import Trace
    from telegrad.scope import Scope
    from telegrad.session import Session


class Tensor(Methods):
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

    def __dlpack_device__(self) -> tuple[int, int]:
        """The host's memory: elements leave the server as a copy on this machine."""
        return 1, 0

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A copy of the elements for another library. BufferError for a device that is not the host's memory."""
        if dl_device not in (None, (1, 0)):
            raise BufferError(f"a tensor's elements are handed over in the host's memory (1, 0), not on {dl_device}")
        return self.numpy().__dlpack__(max_version=max_version)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules["telegrad"]

    # ---- building graphs

    def bind(self, op: Op, inputs: Sequence[Any], regions: Sequence[Graph] = ()) -> tuple[Any, ...]:
        home = context.TRACE.get() or self._home
        on = context.ON.get()
        if on is not None:
            inputs = on.moved(op, inputs)
        outputs = apply(op, [home.value_of(x) for x in inputs], regions, origin=caller())
        if on is not None:
            on.made(outputs[0].node)
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

    def fresh(self) -> Tensor:
        """Another handle on the same value: ``x[i] = y`` on the one leaves the other alone."""
        home = context.TRACE.get() or self._home
        return home.tensor(home.value_of(self), requires_grad=self._requires_grad, weak=self._weak)

    # ---- reading

    def numpy(self, *, timeout_seconds: float | None = None) -> npt.NDArray[Any]:
        """The elements as a NumPy array of the caller's own. Waits for the server, at most ``timeout_seconds``.

        Raises the error of the op that failed, if one did, TimedOut, and TraceError inside `tg.function`.
        """
        self._refuse_in_trace("read")
        return self.session.fetch(self, timeout_seconds=timeout_seconds)

    def concrete(self, asker: str) -> Any:
        """The elements in nested lists, for ``asker``, whose result has a shape that they decide."""
        if self._is_unknown():
            raise TraceError(
                f"{asker} depends on data, which is not known while a function is traced, at {show(caller())}; give"
                " size= where there is one, use tg.where(mask, x, 0), or call it outside"
            )
        return self.tolist()

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item() takes a tensor of one element, not {self.type}; use numpy()")
        return self.numpy().reshape(()).item()

    item_async = item_async

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

    def _is_unknown(self) -> bool:
        return context.TRACE.get() is not None or self._home.is_trace or context.REGION.get() is not None

    def _refuse_in_trace(self, what: str) -> None:
        if self._is_unknown():
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
        if self._is_unknown():
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

    def __matmul__(self, other: Any) -> Any:
        # Python asks a sparse matrix next
        return NotImplemented if getattr(other, "is_sparse", False) else ops.matmul(self, other)

    def __rmatmul__(self, other: Tensor) -> Tensor:
        return ops.matmul(other, self)

    def __getitem__(self, key: Any) -> Tensor:
        """x[key] with ints, slices, None, ..., and integers or masks in tensors, arrays or lists, by NumPy's rules.

        How many elements a mask selects is read from it; inside `tg.function` a mask must be a NumPy array.
        """
        return indexing.getitem(self, _key(self, key))

    def __setitem__(self, key: Any, new: Tensor | Number) -> None:
        """Rebind this handle to a copy with the selected elements replaced; other handles do not change."""
        self._change(indexing.set_items(self, _key(self, key), new))

    def __iadd__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self + other)

    def __isub__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self - other)

    def __imul__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self * other)

    def __itruediv__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self / other)

    def __ifloordiv__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self // other)

    def __imod__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self % other)

    def __ipow__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self**other)

    def __imatmul__(self, other: Tensor) -> Tensor:
        return self._changed(self @ other)

    def __iand__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self & other)

    def __ior__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self | other)

    def __ixor__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self ^ other)

    def __ilshift__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self << other)

    def __irshift__(self, other: Tensor | Number) -> Tensor:
        return self._changed(self >> other)

    def _changed(self, new: Tensor) -> Tensor:
        """This handle, standing for ``new``: what ``x += y`` binds. Its type stays."""
        if self._weak:
            return new  # a number that stands for itself in several places
        if new.dtype is not self.dtype:
            raise DTypeError(f"a {self.type} cannot become a {new.type} in place; write x = x + y, or use astype")
        if new.shape != self.shape:
            raise ShapeError(f"a {self.type} cannot become a {new.type} in place; write x = x + y")
        self._change(new)
        return self

    def _change(self, new: Tensor) -> None:
        if self._requires_grad and self.is_leaf:
            if context.GRADIENTS.get():
                raise GraphError(
                    f"a leaf that requires a gradient ({self.type}) cannot change in place: the gradient would be that"
                    " of another value; compute a new tensor, or change it inside tg.no_grad()"
                )
            self._rebind(new)
            self.requires_grad_()
        else:
            self._rebind(new)

    def _rebind(self, other: Tensor) -> None:
        if other._home is not self._home:
            raise TraceError(
                f"a tensor from outside ({self.type}) was changed in place while a function is traced, at"
                f" {show(caller())}; return the new value, or use a tg.Variable"
            )
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
        if not self._requires_grad:
            return True
        return isinstance(node, (Leaf, GradientPoint)) and node.tensor is not None and node.tensor() is self

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

    # ---- other handles

    def to(self, *target: DType | str | Tensor, dtype: DType | None = None, device: str | None = None) -> Tensor:
        """The elements in another dtype, or that of another tensor. A device can only be the session's own."""
        for each in target:
            if isinstance(each, str):
                device = each
            else:
                dtype = each.dtype if isinstance(each, Tensor) else each
        if device is not None:
            self.to_device(device)
        return self if dtype is None else elementwise.astype(self, dtype, copy=False)

    def cpu(self) -> Tensor:
        """The tensor itself, of which `numpy` makes a copy on this machine wherever it lives."""
        return self

    def clone(self) -> Tensor:
        """The same value under another handle; gradients flow through it."""
        return self.fresh()


def _key(x: Tensor, key: Any) -> Any:
    """The key with arrays and lists of integers as tensors, and a mask that is known here as the places it selects."""
    parts = key if isinstance(key, tuple) else (key,)
    if not any(isinstance(p, list) or (hasattr(p, "dtype") and not isinstance(p, Tensor)) for p in parts):
        return key
    import numpy as np

    from telegrad.creation import asarray

    def part(p: Any) -> Any:
        if isinstance(p, list):
            return asarray(p) if p else asarray(p, dtype=int64)
        return asarray(p) if hasattr(p, "dtype") and (p.shape != () or p.dtype == np.bool_) else p

    if len(parts) == 1 and not _holds_tensor(parts[0]):
        mask = np.asarray(parts[0])
        if mask.dtype == np.bool_ and mask.ndim:
            indexing.check_mask(mask.shape, x.shape[: mask.ndim])
            return tuple([asarray(places) for places in np.nonzero(mask)])
    return tuple(part(p) for p in parts) if isinstance(key, tuple) else part(key)


def _holds_tensor(part: Any) -> bool:
    return isinstance(part, Tensor) or (isinstance(part, list) and any(_holds_tensor(p) for p in part))  # pyright: ignore[reportUnknownVariableType]
