"""The operands of a call: a name on the server or bytes for each input of a traced function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from telegrad.errors import GraphError, ScopeClosed
from telegrad.lazy import Argument, Captured, Handle, Immediate, Leaf, Live, PresentGrad, Source, Version
from telegrad.session import Session
from telegrad.tensor import Tensor
from telegrad.wire.arrays import array_bytes
from telegrad.wire.messages import INLINE_BYTES


def bind(session: Session, sources: Sequence[Source], leaves: list[Any]) -> tuple[list[int | bytes], list[Any]]:
    """A name or bytes for each input; the second list keeps handles alive until the Run is sent."""
    bound: list[int | bytes] = []
    keep: list[Any] = []
    for source in sources:
        if isinstance(source, Version):
            if source.variable in session._updates:  # pyright: ignore[reportPrivateUsage]
                session.flush()
            bound.append(source.variable.handle.name)
        elif isinstance(source, Argument):
            bound.append(_bind_argument(session, leaves[source.position], keep))
        elif isinstance(source, Immediate):
            bound.append(source.data)
        elif isinstance(source, Live):
            bound.append(source.getter())
        else:
            tensor = source.tensor if isinstance(source, Captured) else _present(source)
            if tensor._scope.is_closed:  # pyright: ignore[reportPrivateUsage]
                raise ScopeClosed(f"the function captured a tensor ({tensor.type}) whose scope has closed")
            bound.append(_bind_argument(session, tensor, keep))
    return bound, keep


def _present(source: Source) -> Tensor:
    assert isinstance(source, PresentGrad)
    grad = source.tensor._grad  # pyright: ignore[reportPrivateUsage]
    assert grad is not None  # a guard holds it
    return grad


def _bind_argument(session: Session, x: Any, keep: list[Any]) -> int | bytes:
    if isinstance(x, Tensor):
        if x.session is not session:
            raise session.stranger(x)
        node = x.value.node
        if isinstance(node, Leaf):
            if isinstance(node.source, Handle):
                keep.append(node.source)
                return node.source.name
            if isinstance(node.source, Immediate):
                return node.source.data
        handle = session.handle_of(x)
        keep.append(handle)
        return handle.name
    kind = type(x)
    if kind is float:
        return np.float64(x).tobytes()
    if kind is int:
        try:
            return np.int64(x).tobytes()
        except OverflowError:
            raise GraphError(f"the number {x} does not fit int64; pass it as static") from None
    array = np.asarray(x)
    if array.nbytes <= INLINE_BYTES:
        return bytes(array_bytes(array))
    handle = session.upload(array, scope=session.scopes.current)
    keep.append(handle)
    return handle.name
