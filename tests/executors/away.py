"""An executor whose arrays are NumPy's, but say that they are on a device: what touches them from the host is refused.

As CuPy's do: they do not mix with NumPy's, and only what the executor offers brings them to the host and back. The code
of the host's exchange cannot so much as look at one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from telegrad.ir.types import Type
from telegrad.wire.arrays import array_bytes, numpy_dtype
from telegrad_server.compiler.plan import Plan
from telegrad_server.executors.array import ArrayExecutor
from telegrad_server.executors.array_module import NumpyModule
from telegrad_server.executors.communicator import Communicator
from telegrad_server.executors.direct import Door, agreed
from telegrad_server.executors.fingerprint import numpy_fingerprint
from telegrad_server.executors.recycle import Recycled, aligned_bytes
from telegrad_server.executors.staged import Host, Staged

_HOSTS = "telegrad_server.cluster.collectives"


class Away(np.ndarray):
    """An array on the device."""

    __array_priority__ = 1.0  # several of them, one after the other, are on the device too

    def __array_finalize__(self, obj: Any) -> None:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(_HOSTS):
                raise TypeError("an array on a device was touched by the host's exchange")
            frame = frame.f_back

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim and not isinstance(value, Away):
            raise TypeError("an array of the host's was written to one on a device")
        super().__setitem__(key, value)

    @property
    def ctypes(self) -> Any:
        raise TypeError("the host's address of an array on a device was asked for")

    @property
    def data(self) -> Any:  # type: ignore[override]
        """Where it is on the device, as CuPy says it."""
        return Pointer(super().ctypes.data)


class Pointer(NamedTuple):
    """An address on the device."""

    ptr: int


def away(x: np.ndarray) -> Away:
    """The same elements on the device."""
    return x.copy().view(Away)


class Ferry:
    """Brings them to the host and back; counts how often."""

    def __init__(self) -> None:
        self.brought = 0
        self.taken = 0

    def room(self, like: Any, /) -> Host:
        return np.full(like.size, 77).astype(like.dtype)  # anything but what is in it

    def bring(self, x: Any, to: Host, /) -> None:
        assert isinstance(x, Away) and not isinstance(to, Away)
        self.brought += 1
        to[...] = x.reshape(-1).view(np.ndarray)

    def take(self, x: Host, to: Any, /) -> None:
        assert isinstance(to, Away) and not isinstance(x, Away)
        self.taken += 1
        to.reshape(-1).view(np.ndarray)[...] = x


class AwayExecutor(ArrayExecutor):
    """The executor on that device: what `CupyExecutor` does with CuPy's arrays, this one does with these."""

    def __init__(
        self, *, is_staged: bool = True, device: str = "", door: Callable[[float], Door] | None = None
    ) -> None:
        super().__init__(NumpyModule(), name="away", reason="", fingerprint=f"{numpy_fingerprint()}; away")
        self.is_host = False
        self.device = device
        self.told: list[list[str]] = []
        """What groups said of their members' devices."""
        self.ferry = Ferry()
        self._is_staged = is_staged
        self._door = door

    def exchange(self, host: Communicator, *, devices: Sequence[str], timeout_seconds: float) -> Communicator:
        self.told.append([*devices])
        if self._door is not None:
            return agreed(host, devices, self._door(timeout_seconds), self.ferry)
        return Staged(host, self.ferry) if self._is_staged else host

    def run(
        self, plan: Plan, inputs: Sequence[Any], *, company: AbstractContextManager[None] | None = None
    ) -> list[Any]:
        """NumPy's functions that make arrays make its own, as constants and random numbers: they come to the device."""
        return [x if isinstance(x, Away) else away(np.asarray(x)) for x in super().run(plan, inputs, company=company)]

    def received(self, buffer: Any) -> Any:
        return away(super().received(buffer))

    def to_host(self, array: Any) -> memoryview:
        assert isinstance(array, Away)
        return array_bytes(np.array(array.view(np.ndarray)))

    def _bytes(self, nbytes: int) -> Any:
        return aligned_bytes(nbytes).view(Away)

    def _fresh(self, memory: Recycled) -> Any:
        return np.empty(memory.type.shape, numpy_dtype(memory.type.dtype)).view(Away)

    def _publish(self, arrays: Sequence[Any]) -> None:
        pass

    def type_of(self, array: Any) -> Type:
        return Type(tuple(array.shape), self.module.dtype_of(array))
