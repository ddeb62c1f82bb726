"""What to do with a few minutes of a GPU: `scripts/gpu checks` and `scripts/gpu bench`, most important first.

Every result is printed, and written under ``build/gpu``, as it comes: a cut loses the tail only. ``--dry-run`` does the
same on NumPy, with small sizes, so that the script itself is tried where there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from telegrad import ops
from telegrad.ir import Graph, Type, Value, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ops.control import Gradient
from telegrad.ops.norm import Standardize
from telegrad.wire.arrays import numpy_dtype
from telegrad_server.compiler.pipeline import compile_function
from telegrad_server.executors.array import numpy_executor

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "gpu"
SECONDS = 8 * 60.0

CHECKS = ("tests/gpu/test_kernels.py", "tests/gpu/test_cupy.py", "tests/gpu/test_ops.py", "tests/gpu/test_crews.py")
DRY_CHECKS = ("tests/executors/test_cuda_device.py", "tests/compiler/test_cuda_source.py")


def checks(deadline: float, *, is_dry: bool) -> Iterator[str]:
    """The tests that need a GPU, a file after the other."""
    for path in DRY_CHECKS if is_dry else CHECKS:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "" if is_dry else "gpu", path]
        left = deadline - time.monotonic()
        if left < 10:
            yield f"{path}: no time left"
            continue
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            yield f"{path}: cut off"
            continue
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        yield "\n".join([f"{path}: {(done.stdout or done.stderr).strip().splitlines()[-1]}", *lines])


def _gradients(make: Callable[..., Value], *types: Type) -> Graph:
    inputs = [new_input(type) for type in types]
    out = make(*inputs)
    g = new_input(out.type)
    return Graph.of([*inputs, g], [out, *Gradient(1).results(out, g, *inputs)])


def lines(rows: int, width: int, dtype: t.DType) -> Iterator[tuple[str, Graph]]:
    """What is timed: forward and backward of the kernels that a GPT is made of beside its products."""
    x, w = Type((rows, width), dtype), Type((width,), dtype)
    yield "layer norm", _gradients(lambda x, w, b: Standardize((1,), 1e-5).results(x)[0] * w + b, x, w, w)
    yield "softmax", _gradients(lambda x: ops.softmax(x), x)
    yield "bias and gelu", _gradients(lambda x, b: (x + b) * 0.5 * (ops.erf((x + b) * 0.7071) + 1), x, w)
    yield "log softmax", _gradients(lambda x: ops.log_softmax(x), x)


def bench(deadline: float, *, is_dry: bool) -> Iterator[str]:
    """Times, and bytes a second of what a kernel must read and write at least."""
    executor, synchronise = _executor(is_dry=is_dry)
    for dtype in (t.bfloat16, t.float32):
        for name, graph in lines(*((64, 96) if is_dry else (16384, 4096)), dtype):
            if time.monotonic() > deadline:
                yield f"{name} {dtype}: no time left"
                continue
            plan = compile_function(Function(graph), kernels=executor.kernels)
            rng = np.random.default_rng(0)
            hosts = [rng.normal(size=x.shape).astype(numpy_dtype(x.dtype)) for x in graph.input_types]
            arrays = [executor.received(host) for host in hosts]
            moved = sum([x.nbytes for x in (*graph.input_types, *graph.output_types)])
            seconds = _median(lambda plan=plan, arrays=arrays: executor.run(plan, arrays), synchronise)
            yield f"{name} {dtype}: {seconds * 1e6:.1f} us, {moved / seconds / 1e9:.1f} GB/s, {len(plan.steps)} steps"


def _executor(*, is_dry: bool) -> tuple[Any, Callable[[], None]]:
    if is_dry:
        return numpy_executor(), lambda: None
    from telegrad_server.executors.cupy_module import cp, cupy_executor

    return cupy_executor(kernels="auto"), cp.cuda.Device(0).synchronize


def _median(run: Callable[[], Any], synchronise: Callable[[], None]) -> float:
    for _ in range(3):
        run()
    found: list[float] = []
    for _ in range(20):
        synchronise()
        began = time.perf_counter()
        run()
        synchronise()
        found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]


def main(what: str, *, is_dry: bool, seconds: float = SECONDS, folder: Path = FOLDER) -> None:
    """Do it, and write each result as it comes."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with (folder / f"{what}.txt").open("w") as file:
        for line in {"checks": checks, "bench": bench}[what](deadline, is_dry=is_dry):
            print(line, flush=True)
            print(line, file=file, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("checks", "bench"))
    parser.add_argument("--dry-run", action="store_true", help="on NumPy")
    given = parser.parse_args()
    main(given.what, is_dry=given.dry_run)
