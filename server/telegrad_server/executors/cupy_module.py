"""The array module and the executor over CuPy. With `pick`, which looks for it, the only place that knows cupy.

What a GPU does in no fixed order is given one: repeated indices are sorted (stably, so equal ones keep their
order) and each element of the result is made by one thread that walks its run from the front. So results
repeat bit for bit, and those of scatters equal NumPy's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cupy as cp  # pyright: ignore[reportMissingImports]
import numpy as np
from telegrad.ir.types import Type
from telegrad.ir.value import Number
from telegrad.wire.arrays import array_bytes, numpy_dtype

from telegrad_server import __version__
from telegrad_server.executors.array import ArrayExecutor
from telegrad_server.executors.array_module import Array, LibraryModule
from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.compiling import code_folder
from telegrad_server.executors.cuda_device import CupyDevice
from telegrad_server.executors.cuda_kernels import CudaKernels
from telegrad_server.executors.direct import agreed, device_of, may_meet
from telegrad_server.executors.memory import Memory
from telegrad_server.executors.nvrtc import found_nvrtc
from telegrad_server.executors.recycle import Recycled
from telegrad_server.executors.staged import Host, Staged

_ADD_RUNS = cp.ElementwiseKernel(
    "raw T x, raw int64 order, raw int64 starts",
    "T out",
    "T sum = out; for (long long k = starts[i]; k < starts[i + 1]; ++k) sum += x[order[k]]; out = sum;",
    "telegrad_add_runs",
)
"""out[i] plus the elements of x that belong to it, which stand at order[starts[i]:starts[i + 1]], in that order."""


def is_available() -> bool:
    """Whether a kernel compiles, launches and brings its result back."""
    if not cp.cuda.is_available():
        return False
    with cp.cuda.Device(0):
        return int((cp.arange(4, dtype=np.float32) + 1).get()[3]) == 4


class CupyModule(LibraryModule):
    """The array module over CuPy, with what differs there."""

    name = "cupy"

    def __init__(self) -> None:
        super().__init__(cp)

    def literal(self, number: Number, like: Array) -> Array:
        """A number in the dtype of an array."""
        return cp.asarray(number, dtype=like.dtype)

    def matmul(self, x: Array, y: Array) -> Array:
        """The matrix product. Stacks of 16-bit floats go through float32: CuPy 14 multiplies only single ones."""
        return cp.matmul(x, y) if x.ndim == y.ndim == 2 else super().matmul(x, y)

    def _decomposed(self, failure: str, function: Any, *arrays: Array, **options: Any) -> Any:
        """What the library's function gives. Errors that CuPy leaves out to save a synchronisation are asked for."""
        import cupyx  # pyright: ignore[reportMissingImports]

        with cupyx.errstate(linalg="raise"):
            return super()._decomposed(failure, function, *arrays, **options)

    def solve(self, x: Array, y: Array) -> Array:
        """z with x z = y; CuPy does not broadcast stacks, nor take empty ones."""
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        if not x.size or not y.size:
            return cp.zeros((*lead, *y.shape[-2:]), y.dtype)
        wide = (cp.broadcast_to(z, (*lead, *z.shape[-2:])) for z in (x, y))
        return super().solve(*map(cp.ascontiguousarray, wide))

    def _special(self, name: str, x: Array) -> Array:
        from cupyx.scipy import special  # pyright: ignore[reportMissingImports]  # loads in a second: on first use

        function = getattr(special, {"lgamma": "gammaln", "digamma": "psi"}.get(name, name))
        wide = x.astype(np.float32) if self._is_16_bit_float(x) else x
        return function(wide).astype(x.dtype, copy=False)

    def _add_at(self, result: Array, at: Array, x: Array) -> None:
        order = cp.argsort(at, kind="stable")
        starts = cp.searchsorted(at[order], cp.arange(result.size + 1))
        _ADD_RUNS(cp.ascontiguousarray(x), order, starts.astype(np.int64), result)

    def _set_at(self, result: Array, at: Array, y: Array) -> None:
        if not at.size:
            return
        order = cp.argsort(at, kind="stable")
        rows = at[order]
        is_last = cp.concatenate([rows[1:] != rows[:-1], cp.ones(1, np.bool_)])
        result[rows[is_last]] = y[order[is_last]]


class Pinned:
    """A GPU's arrays come to page-locked host memory, which the device reads and writes by itself, and back."""

    def room(self, like: Array, /) -> Host:
        """Page-locked memory for the elements of an array. CuPy's pool keeps it for the next one."""
        memory = cp.cuda.alloc_pinned_memory(max(like.nbytes, 1))
        return np.ndarray((like.size,), like.dtype, memory)

    def bring(self, x: Array, to: Host, /) -> None:
        """Copy to the host, behind all that the current stream has been given."""
        stream = cp.cuda.get_current_stream()
        x.reshape(-1).get(stream=stream, out=to, blocking=False)
        stream.synchronize()

    def take(self, x: Host, to: Array, /) -> None:
        """Copy to the device."""
        stream = cp.cuda.get_current_stream()
        to.reshape(-1).set(x, stream=stream)
        stream.synchronize()


class CupyExecutor(ArrayExecutor):
    """The executor on a GPU. CuPy's memory pool recycles what results held, so no blocks are kept here."""

    def exchange(self, host: Communicator, *, devices: Sequence[str], timeout_seconds: float) -> Communicator:
        """A group over NCCL if all members can, else one by way of page-locked memory."""
        if not may_meet(devices):
            return Staged(host, Pinned())
        from telegrad_server.executors.nccl import NcclDoor  # where NCCL is missing it cannot be imported

        return agreed(host, devices, NcclDoor(timeout_seconds=timeout_seconds), Pinned())

    def memory(self) -> Memory:
        """The GPU's memory; what CuPy's pool keeps for later counts as used."""
        with cp.cuda.Device(0):
            free, total = cp.cuda.runtime.memGetInfo()
        return Memory(int(total), int(total - free))

    def received(self, buffer: Any) -> Array:
        """The array in a filled buffer, on the device."""
        return cp.asarray(super().received(buffer))

    def to_host(self, array: Array) -> memoryview:
        """The array's bytes, brought to the host."""
        return array_bytes(cp.asnumpy(array))

    def _bytes(self, nbytes: int) -> Array:
        return cp.empty(nbytes, np.uint8)

    def _fresh(self, memory: Recycled) -> Array:
        return cp.empty(memory.type.shape, numpy_dtype(memory.type.dtype))

    def _publish(self, arrays: Sequence[Array]) -> None:
        pass  # CuPy has no read-only arrays: that nobody writes results is a rule there, not a flag

    def type_of(self, array: Array) -> Type:
        """The type of an array."""
        return Type(tuple(array.shape), self.module.dtype_of(array))


def cupy_executor(*, kernels: str = "off", is_poisoned: bool = False) -> CupyExecutor:
    """The executor on the first GPU. With ``kernels`` "auto" groups of ops are kernels in CUDA where there is NVRTC."""
    properties = cp.cuda.runtime.getDeviceProperties(0)
    arch = f"sm_{properties['major']}{properties['minor']}"
    nvrtc, folder = (found_nvrtc(), code_folder()) if kernels == "auto" else (None, None)
    cuda = None if nvrtc is None or folder is None else CudaKernels(CupyDevice(cp, nvrtc, arch, folder))
    fingerprint = "; ".join(
        [
            f"telegrad {__version__}",
            f"cupy {cp.__version__}",
            f"numpy {np.__version__}",
            f"cuda {cp.cuda.runtime.runtimeGetVersion()}",
            f"{properties['name'].decode()} {arch}",
            *([f"kernels by nvrtc {nvrtc.version}"] if nvrtc is not None and cuda is not None else []),
        ]
    )
    executor = CupyExecutor(
        CupyModule(), name="cupy", reason="", fingerprint=fingerprint, cuda=cuda, is_poisoned=is_poisoned
    )
    executor.device = _device(properties)
    return executor


def _device(properties: dict[str, Any]) -> str:
    """What NCCL needs to be told apart by; empty where it does not load."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy warns that it is not there
            from cupy.cuda import nccl  # pyright: ignore[reportMissingImports]

            version = int(nccl.get_version())
        return device_of(version, f"{bytes(properties['uuid']).hex()}/{cp.cuda.Device(0).pci_bus_id}")
    except Exception:  # a broken installation fails in many ways; host memory serves instead
        return ""
