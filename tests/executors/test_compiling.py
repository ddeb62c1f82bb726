"""Compiled sources: kept in a private folder, and nothing is loaded that somebody else could have written."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from telegrad_server.executors import compiling
from telegrad_server.executors.array import numpy_executor
from telegrad_server.executors.compiling import Compiler, compiled, found_compiler, private_folder

SOURCE = "int answer(void) { return 42; }"


@pytest.fixture
def compiler() -> Compiler:
    found = found_compiler()
    if found is None:
        pytest.skip("there is no C compiler")
    return found


def answer(library: ctypes.CDLL | None) -> int:
    assert library is not None
    return library.answer()


def test_a_source_is_compiled_once(compiler: Compiler, tmp_path: Path) -> None:
    assert answer(compiled(SOURCE, compiler, tmp_path)) == 42
    (made,) = tmp_path.iterdir()
    before = made.stat().st_mtime_ns

    assert answer(compiled(SOURCE, compiler, tmp_path)) == 42
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]


def test_another_compiler_makes_another_library(compiler: Compiler, tmp_path: Path) -> None:
    compiled(SOURCE, compiler, tmp_path)
    compiled(SOURCE, compiler._replace(version="another"), tmp_path)

    assert len(list(tmp_path.iterdir())) == 2


def test_a_torn_library_is_made_again(compiler: Compiler, tmp_path: Path) -> None:
    key_only = compiler._replace(version="torn")  # what is loaded under a path stays loaded in this process
    compiled(SOURCE, key_only, tmp_path)
    (made,) = tmp_path.iterdir()
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / made.name).write_bytes(b"no library")

    assert answer(compiled(SOURCE, key_only, other)) == 42


def test_a_library_that_others_may_write_is_not_loaded(compiler: Compiler, tmp_path: Path) -> None:
    key_only = compiler._replace(version="writable")
    compiled(SOURCE, key_only, tmp_path)
    (made,) = tmp_path.iterdir()
    made.chmod(0o777)

    assert answer(compiled(SOURCE, key_only, tmp_path)) == 42
    assert not made.stat().st_mode & 0o022  # it has been made anew


def test_a_source_that_does_not_compile_gives_none(compiler: Compiler, tmp_path: Path) -> None:
    assert compiled("this is not C", compiler, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_missing_compiler_gives_none(tmp_path: Path) -> None:
    assert compiled(SOURCE, Compiler(str(tmp_path / "none"), "1"), tmp_path) is None


def test_a_folder_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "kernels"

    assert private_folder(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o755)

    assert private_folder(folder) is None


def test_a_link_to_a_folder_is_not_used(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)

    assert private_folder(tmp_path / "link") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)

    assert private_folder(folder) is None


def test_the_fingerprint_names_the_compiler(compiler: Compiler) -> None:
    with_kernels, without = numpy_executor(kernels="auto"), numpy_executor()

    assert f"kernels {compiler.version}" in with_kernels.fingerprint
    assert "kernels none" in without.fingerprint
    assert (with_kernels.kernels, without.kernels) == ("c", "none")


def test_where_there_is_no_compiler_nothing_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    compiling.found_compiler.cache_clear()
    try:
        executor = numpy_executor(kernels="auto")
    finally:
        compiling.found_compiler.cache_clear()

    assert executor.kernels == "none"
    assert "kernels none" in executor.fingerprint
