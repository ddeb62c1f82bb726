"""The kernel library, compiled once for all tests that call its kernels."""

from __future__ import annotations

import ctypes

import pytest
from telegrad_server.executors.compiling import compiled, found_compiler
from telegrad_server.executors.library import LINKS, Library, source


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Its functions as they are."""
    compiler = found_compiler()
    if compiler is None:
        pytest.skip("no C compiler")
    found = compiled(source(), compiler, tmp_path_factory.mktemp("library"), links=LINKS)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def library(loaded: ctypes.CDLL) -> Library:
    """The library."""
    return Library(loaded)
