"""Kernels where something is wrong: no compiler that works, or none later on, a folder without rights, a full disk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from telegrad import ops
from telegrad.ir import Function, Graph, Type, new_input
from telegrad.ir import types as t
from telegrad_server.compiler.fuse import fuse
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors import compiling
from telegrad_server.executors.array import ArrayExecutor, numpy_executor
from telegrad_server.executors.compiling import found_compiler

COMPILER = found_compiler()
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


def planned() -> Plan:
    """A plan with one printed kernel."""
    x = new_input(Type((64, 96), t.float32))
    return make_plan(Function(fuse(Graph.of([x], [ops.tanh(x) * 2 + x]))), uses_library=True)


def run(executor: ArrayExecutor) -> None:
    """Run it, and see that the result is right."""
    x = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    (found,) = executor.run(planned(), [x])
    np.testing.assert_allclose(found, np.tanh(x) * 2 + x, rtol=1e-5, atol=1e-6)


class Wrapped:
    """A gcc that runs a few lines of shell and then the real one, in haste; ``$source`` is what it compiles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.path = folder / "bin" / "gcc"

    def does(self, lines: str) -> None:
        assert COMPILER is not None
        find = 'for word in "$@"; do case "$word" in *.c) source=$word ;; esac; done'
        does = f'if [ "$source" ]; then :; {lines}\nfi'
        self.path.write_text(f'#!/bin/sh\n{find}\n{does}\nexec {COMPILER.path} "$@" -O0\n')
        self.path.chmod(0o755)


@pytest.fixture
def gcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wrapped]:
    wrapped = Wrapped(tmp_path)
    wrapped.does("")
    monkeypatch.setenv("PATH", f"{wrapped.path.parent}:{os.environ['PATH']}")
    compiling.found_compiler.cache_clear()
    yield wrapped
    compiling.found_compiler.cache_clear()


def executor(folder: Path) -> ArrayExecutor:
    return numpy_executor(kernels="auto", kernels_dir=str(folder / "kernels"))


def test_a_compiler_without_headers_is_none(gcc: Wrapped, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gcc.does('if grep -q pthread.h "$source"; then echo no pthread.h >&2; exit 1; fi')

    found = executor(tmp_path)

    assert found.kernels == "none" and "kernels none" in found.fingerprint
    assert "no pthread.h" in caplog.text
    run(found)


def test_a_machine_without_a_compiler_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("PATH", "/nonexistent")
    compiling.found_compiler.cache_clear()
    try:
        for _ in range(2):
            assert numpy_executor(kernels="auto").kernels == "none"
    finally:
        compiling.found_compiler.cache_clear()

    assert [record.message for record in caplog.records] == [
        "there is no C compiler here (gcc or clang): NumPy runs every op"
    ]


def test_the_fingerprint_tells_if_numpy_stands_in_for_a_kernel(gcc: Wrapped, tmp_path: Path) -> None:
    found = executor(tmp_path)
    before = found.fingerprint
    gcc.does("exit 1")

    run(found)

    assert found.fingerprint == f"{before}; some kernels were not compiled"


def test_the_fingerprint_has_a_digest_of_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = executor(tmp_path).fingerprint
    monkeypatch.setattr(compiling, "FLAGS", (*compiling.FLAGS, "-fno-strict-aliasing"))

    assert executor(tmp_path).fingerprint != before


def test_the_library_and_a_plan_s_kernels_are_compiled_at_the_same_time(gcc: Wrapped, tmp_path: Path) -> None:
    """Each of the two waits for the other: one after the other they would never end."""
    os.mkfifo(tmp_path / "pipe")
    library = f'if grep -q tg_matmul "$source"; then cat {tmp_path}/pipe >/dev/null'
    gcc.does(f'{library}; elif ! grep -q tg_trial "$source"; then echo >{tmp_path}/pipe; fi')
    found = executor(tmp_path)

    run(found)

    assert found.native is not None and not found.native.has_failed


def test_the_library_is_compiled_in_the_background(gcc: Wrapped, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    gcc.does(f'if grep -q tg_matmul "$source"; then cat {tmp_path}/pipe >/dev/null; fi')
    found = executor(tmp_path)
    assert found.native is not None

    found.expect_kernels()
    (tmp_path / "pipe").write_text("")  # it is under way: this waits for whoever reads

    assert found.native.library is not None


def test_a_folder_that_cannot_be_made_costs_the_cache_alone(gcc: Wrapped) -> None:
    found = numpy_executor(kernels="auto", kernels_dir="/dev/null/kernels")

    assert found.kernels == "c"
    run(found)


FULL = """
import resource, signal, sys
import numpy as np
import telegrad as tg
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
with tg.connect(backend="numpy") as session:
    @tg.function
    def f(x):
        return tg.tanh(x) * 2 + x
    x = np.ones((300, 300), np.float32)
    np.testing.assert_allclose(f(x).numpy(), np.tanh(x) * 2 + x, rtol=1e-6)
    print(session.fingerprint)
"""


PROMPT = """
import numpy as np
import telegrad as tg
with tg.connect(backend="numpy"):
    for _ in range(5):
        (tg.asarray([1.0, 2.0]) * 2 + 1).numpy()
    print(open(LOG).read().split())
    for _ in range(2):
        (tg.tanh(tg.asarray(np.ones((300, 300), np.float32))) * 2).numpy()
    while len(open(LOG).read().split()) < 2:
        pass  # the compiler has begun, in another thread
"""


def test_a_prompt_waits_for_no_compiler_and_a_large_graph_begins_with_the_library(gcc: Wrapped, tmp_path: Path) -> None:
    """What is typed is run by NumPy two times; that the size is worth kernels is known from the first time on."""
    log = tmp_path / "log"
    gcc.does(f'grep -o -m 1 -E "tg_trial|tg_matmul" "$source" >>{log} || echo printed >>{log}')
    variables = {**os.environ, "TELEGRAD_SERVER_KERNELS_DIR": str(tmp_path / "kernels")}
    variables["TELEGRAD_SERVER_NATIVE_KERNELS"] = "auto"
    script = PROMPT.replace("LOG", repr(str(log)))

    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "['tg_trial']\n"
    assert log.read_text().split() == ["tg_trial", "tg_matmul"]


def test_a_full_disk_fails_no_session(tmp_path: Path) -> None:
    """No file may be longer than 2 KiB, so no library is written anywhere."""
    variables = {**os.environ, "TELEGRAD_SERVER_KERNELS_DIR": str(tmp_path / "kernels")}
    variables["TELEGRAD_SERVER_NATIVE_KERNELS"] = "auto"

    done = subprocess.run([sys.executable, "-c", FULL], env=variables, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "kernels none" in done.stdout
    assert list((tmp_path / "kernels").iterdir()) == []
