"""The kernel library and its threads: all units are done once, in order, whoever does them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from telegrad_server.executors import library as module
from telegrad_server.executors.compiling import Compiler, compiled, found_compiler
from telegrad_server.executors.library import LINKS, Call, Library, address_in, library_of, source, threads

KERNELS = r"""
#include <pthread.h>

struct marks { long *marks; pthread_t *by; };

/* Each unit must find what the call before has left: its number plus the number of calls so far. */
void mark(const void *arguments, long begin, long end)
{
    const struct marks *a = arguments;
    for (long u = begin; u < end; u++) {
        a->marks[u] = 3 * a->marks[u] + u;
        a->by[u] = pthread_self();
    }
}

/* Adds up what all threads have written. */
void total(const void *arguments, long begin, long end)
{
    const struct marks *a = arguments;
    long sum = 0;
    for (long u = 0; u < 97; u++)
        sum += a->marks[u];
    for (long u = 0; u < 97; u++)
        a->marks[u] = sum % 1000 + u;
}

/* Goes on until it is told to end. */
void wait(const void *arguments, long begin, long end)
{
    const struct marks *a = arguments;
    __atomic_store_n(a->marks, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(a->marks + 1, __ATOMIC_SEQ_CST))
        ;
}
"""


class Marks(ctypes.Structure):
    _fields_ = (("marks", ctypes.c_void_p), ("by", ctypes.c_void_p))


class Given:
    """Arrays for the kernels above, and calls on them."""

    def __init__(self, units: int = 97) -> None:
        self.marks = np.zeros(units, np.int64)
        self.by = np.zeros(units, np.uint64)
        self.struct = Marks(self.marks.ctypes.data, self.by.ctypes.data)
        self.units = units

    def call(self, kernel: int, *, serial: int = 0) -> Call:
        return Call(kernel, ctypes.addressof(self.struct), self.units, serial)


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    found = found_compiler()
    if found is None:
        pytest.skip("there is no C compiler")
    return found


@pytest.fixture(scope="module")
def kernels(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    loaded = compiled(KERNELS, compiler, tmp_path_factory.mktemp("kernels"), links=LINKS)
    assert loaded is not None
    return {name: address_in(loaded, name) for name in ("mark", "total", "wait")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library")


@pytest.fixture
def own(compiler: Compiler, folder: Path) -> Iterator[Library]:
    found = library_of(compiler, folder).library()
    assert found is not None
    yield found
    found.use_threads(threads())


def run(library: Library, calls: list[Call]) -> None:
    array = (Call * len(calls))(*calls)
    library.run(ctypes.addressof(array), len(calls))


def expected(units: int, script: str) -> np.ndarray:
    marks = np.zeros(units, np.int64)
    for word in script:
        marks = 3 * marks + np.arange(units) if word == "m" else marks.sum() % 1000 + np.arange(units)
    return marks


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_unit_is_done_once_and_every_call_sees_the_one_before(
    own: Library, kernels: dict[str, int], count: int
) -> None:
    own.use_threads(count)
    script = "mmtmttm"

    for _ in range(50):
        given = Given()
        run(own, [given.call(kernels["mark"] if w == "m" else kernels["total"], serial=w == "t") for w in script])

        assert given.marks.tolist() == expected(97, script).tolist()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_units_are_shared_by_as_many_threads_as_there_are(own: Library, kernels: dict[str, int], count: int) -> None:
    own.use_threads(count)
    given = Given()

    run(own, [given.call(kernels["mark"])])

    cuts = [97 * t // count for t in range(count + 1)]
    assert len(set(given.by.tolist())) == count
    for begin, end in pairwise(cuts):
        assert len(set(given.by[begin:end].tolist())) == 1


def test_what_is_serial_or_has_one_unit_is_done_by_the_caller(own: Library, kernels: dict[str, int]) -> None:
    own.use_threads(2)
    serial, single, shared = Given(), Given(units=1), Given()

    run(own, [shared.call(kernels["mark"]), serial.call(kernels["mark"], serial=1), single.call(kernels["mark"])])

    assert {*serial.by.tolist(), *single.by.tolist()} == {int(shared.by[0])}


def test_nothing_to_do_is_done(own: Library, kernels: dict[str, int]) -> None:
    own.use_threads(2)
    run(own, [])
    run(own, [Given(units=0).call(kernels["mark"])])


def test_a_second_caller_runs_its_calls_alone(own: Library, kernels: dict[str, int]) -> None:
    own.use_threads(2)
    waiting, given = Given(units=2), Given()
    first = threading.Thread(target=run, args=(own, [Call(kernels["wait"], ctypes.addressof(waiting.struct), 2, 0)]))
    first.start()
    while not waiting.marks[0]:  # until the pool is busy
        pass

    run(own, [given.call(kernels["mark"])])
    waiting.marks[1] = 1
    first.join()

    assert given.marks.tolist() == list(range(97))
    assert len(set(given.by.tolist())) == 1


@pytest.mark.slow
def test_a_forked_child_makes_threads_of_its_own() -> None:
    script = """
import ctypes, os, sys, warnings
warnings.simplefilter("ignore")
import pytest
from tests.executors.test_library import *
from telegrad_server.executors.compiling import working_folder
compiler = found_compiler()
folder = working_folder("", compiler, None, links=LINKS)
own = library_of(compiler, folder).library()
loaded = compiled(KERNELS, compiler, folder, links=LINKS)
mark = address_in(loaded, "mark")
own.use_threads(2)
def works():
    given = Given()
    run(own, [given.call(mark), given.call(mark)])
    return given.marks.tolist() == expected(97, "mm").tolist() and len(set(given.by.tolist())) == 2
assert works()
child = os.fork()
if child == 0:
    os._exit(0 if works() else 1)
assert os.waitpid(child, 0)[1] == 0
assert works()
print("forked")
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=100)

    assert done.stdout == "forked\n", done.stderr


def test_the_sources_are_one_text_without_includes_of_their_own(compiler: Compiler) -> None:
    assert '#include "' not in source()


def test_every_source_is_named(compiler: Compiler) -> None:
    assert {path.name for path in module.FOLDER.iterdir()} == set(module.SOURCES)


def test_one_thread_is_used_where_one_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "openblas", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert threads() == 1
