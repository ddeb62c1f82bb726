"""A checkpoint of a job: read tensor by tensor, into arrays, into a model, or into a file that others load."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from telegrad.errors import NotFound
from telegrad.ir.types import Type
from telegrad.jobs.naming import module_tensors, optimizer_tensors
from telegrad.variable import Variable
from telegrad.wire import safetensors as format
from telegrad.wire.arrays import array_bytes, numpy_dtype
from telegrad.wire.jobs import CheckpointHeader

if TYPE_CHECKING:
    from telegrad.nn.module import Module
    from telegrad.optim.optimizer import Optimizer
    from telegrad.transport import JobCalls

Array = npt.NDArray[Any]


class Checkpoint:
    """A checkpoint by its step. Made by `Job.checkpoint` and `Job.best`; of the best one ``value`` is its metric."""

    def __init__(self, calls: JobCalls, job: str, step: int | None, *, value: float | None = None) -> None:
        self._calls = calls
        self._job = job
        header, tensors = calls.checkpoint(job, step)
        _close(tensors)
        self.step = header.step
        self.value = value
        self.tensors: Mapping[str, Type] = dict(header.tensors)

    def __repr__(self) -> str:
        value = "" if self.value is None else f" with {self.value:.4g}"
        return f"<Checkpoint of step {self.step}{value}, {len(self.tensors)} tensors>"

    def read(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Its tensors by name, those that begin with ``prefix``, each when it is asked for. NotFound if none does."""
        header, tensors = self._calls.checkpoint(self._job, self.step, prefix=prefix)
        return _named(header, tensors)

    def state_dict(self, root: str | None = None) -> dict[str, Array]:
        """Its tensors by name, ``model.0.weight``; those of one ``root`` by the names that it gives them, ``0.weight``.

        Two trees with equal keys: ``model.load_state_dict(checkpoint.state_dict("model"))``.
        """
        prefix = _prefix(root)
        return {name.removeprefix(prefix): array for name, array in self.read(prefix)}

    def save(self, filename: str | os.PathLike[str], root: str | None = None) -> None:
        """Write its tensors, or those of one ``root``, to a safetensors file, named as in `state_dict`.

        The file is complete or, whatever happens, the one before; one tensor is in memory at a time. PyTorch loads it:
        ``model.load_state_dict(safetensors.torch.load_file(filename))``.
        """
        from telegrad.safetensors import write_blocks

        prefix = _prefix(root)
        write_blocks(filename, self._blocks(prefix))

    def _blocks(self, prefix: str) -> Iterator[bytes | memoryview]:
        header, tensors = self._calls.checkpoint(self._job, self.step, prefix=prefix)
        types = {name.removeprefix(prefix): (numpy_dtype(type.dtype), type.shape) for name, type in header.tensors}
        entries = format.layout(types)
        assert list(entries) == list(types), "a server sends a checkpoint in the order of a file"
        yield format.write_header(entries, {"format": "pt", "job": self._job, "step": str(self.step)})
        try:
            yield from map(array_bytes, tensors)
        finally:
            _close(tensors)

    def load_state(self, model: Module, optimizer: Optimizer | None = None, *, root: str | None = None) -> int:
        """Assign it to a model, and an optimizer of the same kind; returns its step.

        They may be of another session or program than the one that submitted. ``root`` is what the names of the model's
        tensors begin with, such as "ema.module", where more than one model in the checkpoint is like it. NotFound if
        the job trains none like it; nothing has been assigned then. Tensors are assigned as they come, so an error of
        the network leaves some of them as they were.
        """
        what = f"a model like this {type(model).__name__}"
        root, fitting = _fitting(self.tensors, dict(module_tensors(model)), what, needs_all=False, root=root)
        prefix = f"{root}."
        if optimizer is not None:
            what = f"an optimizer like this {type(optimizer).__name__}"
            fitting |= _fitting(self.tensors, dict(optimizer_tensors(optimizer)), what, needs_all=True, root=None)[1]
            prefix = ""
        for name, array in self.read(prefix):
            if name in fitting:
                fitting[name].assign(array)
        for variable in fitting.values():
            variable.session.flush()
            break
        return self.step


def _fitting(
    types: Mapping[str, Type], own: dict[str, Variable], what: str, *, needs_all: bool, root: str | None
) -> tuple[str, dict[str, Variable]]:
    """The root that fits best, and which variables the tensors under it are for. NotFound if none fits."""
    best: tuple[str, dict[str, Variable]] = "", {}
    for candidate in dict.fromkeys([name.partition(".")[0] for name in types]) if root is None else [root]:
        known = {f"{candidate}.{name}": variable for name, variable in own.items() if f"{candidate}.{name}" in types}
        fits = all(types[name].shape == variable.type.shape for name, variable in known.items())
        if fits and len(known) > len(best[1]) and (len(known) == len(own) or not needs_all):
            best = candidate, known
    if not best[1]:
        raise NotFound(f"the job's checkpoint holds no state of {what}; it has {', '.join(list(types)[:8])}")
    return best


def _named(header: CheckpointHeader, tensors: Iterator[Array]) -> Iterator[tuple[str, Array]]:
    try:
        for (name, _), array in zip(header.tensors, tensors, strict=True):
            yield name, array
    finally:
        _close(tensors)


def _close(tensors: Iterator[Array]) -> None:
    """Let the server know that no more of them are wanted."""
    close = getattr(tensors, "close", None)
    if close is not None:
        close()


def _prefix(root: str | None) -> str:
    return "" if root is None else f"{root}."
