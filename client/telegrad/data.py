"""Batches on their way to a training loop: `prefetch` uploads the next ones while a step runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

import numpy as np

from telegrad import context
from telegrad.errors import GraphError
from telegrad.nest import flatten, unflatten
from telegrad.scope import Scope
from telegrad.session import Session
from telegrad.tensor import Tensor

__all__ = ["prefetch"]

B = TypeVar("B")


def prefetch(batches: Iterable[B], *, depth: int = 2) -> Generator[B, None, None]:
    """The batches in order, with a tensor for each array; when one comes out, the next ``depth`` are on their way.

    A batch is an array or a nest of them: tuples, lists, dicts, dataclasses. What is no array stays as it is. An array
    may be changed as soon as the next batch is asked of ``batches``: it is copied then. Tensors belong to the scope in
    which `prefetch` was called, so a loop may open scopes of its own. At most ``depth`` + 1 batches are on the server
    beside those that the program holds; when the loop is left, by ``break`` or an error as well, they are freed.

    No thread is started: what takes time in ``batches`` is done between two steps, while the server computes. An error
    in it comes up to ``depth`` batches early. Raises GraphError for a depth of less than 1.

    ::

        for x, y in tg.data.prefetch(batches):
            print(train_step(x, y).item())
    """
    if depth < 1:
        raise GraphError(f"prefetch takes a depth of 1 or more, not {depth}")
    session = context.current_session()
    return _ahead(session, session.scopes.current, batches, depth)


def _ahead(session: Session, scope: Scope, batches: Iterable[B], depth: int) -> Generator[B, None, None]:
    waiting: deque[B] = deque()
    try:
        for batch in batches:
            waiting.append(_uploaded(session, scope, batch))
            if len(waiting) > depth:
                del batch  # whoever takes it holds it alone
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        waiting.clear()
        if session.is_live:
            session.release()


def _uploaded(session: Session, scope: Scope, batch: B) -> B:
    """The batch with its arrays on their way to the server."""
    leaves, structure = flatten(batch)
    return unflatten(structure, [_leaf(session, scope, x) for x in leaves])


def _leaf(session: Session, scope: Scope, x: Any) -> Any:
    if isinstance(x, (Tensor, np.generic)) or not (hasattr(x, "__array__") or hasattr(x, "__dlpack__")):
        return x
    return session.from_numpy(np.asarray(x), scope=scope)
