"""Numbers that users give as counts: Python's integers and NumPy's."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from telegrad.errors import GraphError


def count(value: SupportsIndex, what: str, *, least: int) -> int:
    """The integer. GraphError (JOB_INVALID), which calls it ``what``, for what is none or is less than ``least``."""
    try:
        found = operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least or isinstance(value, bool):
        raise GraphError(f"{what} must be an integer of at least {least}, not {value!r}", reason="JOB_INVALID")
    return found


def optional(value: SupportsIndex | None, what: str, *, least: int) -> int | None:
    """The same, where None leaves it open."""
    return None if value is None else count(value, what, least=least)
