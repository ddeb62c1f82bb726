"""Libraries that are only needed for some kinds of files; a server without such files needs none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from telegrad.errors import ResourceError


def library(module: str, *, package: str, dataset: str, extra: str = "datasets") -> Any:
    """The module. ResourceError, in a sentence, if its package is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ResourceError(
            f"dataset {dataset!r} needs {package}, which is not there ({error}): pip install 'telegrad[{extra}]'"
        ) from None
