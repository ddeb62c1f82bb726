"""Kernels that stand for all: those of every op of the numeric registry, and of training steps of a few models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import telegrad as tg
from telegrad import nn, optim
from telegrad.errors import TelegradError
from telegrad.ir import Graph, Type, new_input
from telegrad.ir import types as t
from telegrad.ir.graph import Function
from telegrad.ir.value import apply
from telegrad.ops.control import Gradient
from telegrad.wire.arrays import type_of
from telegrad.wire.codec import decode_function
from telegrad_server.compiler.cuda_source import CudaKernel
from telegrad_server.compiler.cuda_words import CUDA
from telegrad_server.compiler.fuse import fuse_region
from telegrad_server.compiler.loops import in_regions
from telegrad_server.compiler.pipeline import compile_function, optimise
from telegrad_server.compiler.plan import Plan, make_plan
from telegrad_server.executors.cuda_kernels import printed_kernels

from bench.fusion import Block
from tests.ops.registry import FACTS, Sample

FLOATS = (t.float32, t.bfloat16, t.float16)


def kernels_of(plans: Iterator[Plan]) -> list[CudaKernel]:
    """The kernels of plans, each once."""
    return list(dict.fromkeys([kernel for plan in plans for kernel in printed_kernels(plan)]))


def registry_plans() -> Iterator[Plan]:
    """Every op of the registry with its gradient: all samples in float32, the first in 16-bit floats."""
    for facts in FACTS.values():
        for number, sample in enumerate(facts.samples):
            for dtype in FLOATS if number == 0 else FLOATS[:1]:
                graph = _with_gradient(sample, dtype)
                if graph is not None:
                    fused = in_regions(fuse_region(optimise(graph), CUDA), partial(fuse_region, dialect=CUDA))
                    yield make_plan(Function(fused))


def _with_gradient(sample: Sample, dtype: t.DType) -> Graph | None:
    types = [type_of(a) for a in sample.arrays]
    inputs = [new_input(Type(x.shape, dtype) if x.dtype.is_float else x) for x in types]
    try:
        results = [v for v in apply(sample.op, inputs) if v.size]
        out = next((v for v in results if v.dtype.is_float), None)
        wanted = [x for x in inputs if x.dtype.is_float]
        if out is None or not wanted:
            return Graph.of(inputs, results)
        g = new_input(out.type)
        graph = Graph.of([*inputs, g], [*results, *Gradient(1).results(out, g, *wanted)])
        optimise(graph)
    except TelegradError:  # not an op of this dtype, or one without a gradient
        return None
    return graph


class Forecast(nn.Module):
    """An LSTM with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


def _models() -> Iterator[tuple[str, Callable[[], Any], Sequence[Any]]]:
    labels = np.zeros(64, np.int64)
    mlp = partial(nn.Sequential, *[partial(nn.Linear, 784, 256), nn.ReLU, nn.Dropout, partial(nn.Linear, 256, 10)])
    yield "mlp", lambda: nn.Sequential(*[part() for part in mlp.args]), (np.zeros((64, 784), np.float32), labels)
    yield "cnn", cnn, (np.zeros((64, 3, 32, 32), np.float32), labels)
    yield "gpt", gpt, (np.zeros((4, 128, 256), np.float32), np.zeros((4, 128), np.int64))
    yield "lstm", Forecast, (np.zeros((64, 20, 32), np.float32), labels)


def cnn() -> Any:
    """Convolutions, batch norm and pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip


def gpt() -> Any:
    """Blocks of a GPT, with dropout and a head."""
    return nn.Sequential(Block(256, 4), nn.Dropout(0.1), Block(256, 4), nn.LayerNorm(256), nn.Linear(256, 512))


def model_plans() -> Iterator[tuple[str, Plan]]:
    """A training step of each model, by AdamW."""
    for name, plan, _ in step_plans():
        yield name, plan


def step_plans() -> Iterator[tuple[str, Plan, Plan]]:
    """The same, and beside it the plan without kernels."""
    with tg.connect(new=True, seed=0) as session:
        for name, make, arrays in _models():
            data = _step(session, make(), arrays)
            plain = compile_function(decode_function(data))
            yield name, compile_function(decode_function(data), kernels="cuda"), plain


def _step(session: tg.Session, model: Any, arrays: Sequence[Any]) -> bytes:
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    @tg.function
    def step(x: Any, y: Any) -> Any:
        scores = model(x)
        loss = nn.functional.cross_entropy(tg.reshape(scores, (-1, scores.shape[-1])), tg.reshape(y, (-1,)))
        optimizer.minimize(loss)
        return loss

    given = dict(zip("xy", [tg.asarray(a) for a in arrays], strict=True))
    return step.compiled(session, given).prepared.data
