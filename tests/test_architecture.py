"""The arrows between modules, the owners of heavy dependencies, and what people forget."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import telegrad as tg
from telegrad import errors, nn, optim
from telegrad.ir.op import check_annotations
from telegrad.ops import registry

from tests import architecture


def test_the_arrows_hold() -> None:
    assert architecture.violations(architecture.ROOT) == []


PLANTED = {
    "client/telegrad/ir/bad.py": ("import numpy", "telegrad.ir.bad imports numpy"),
    "client/telegrad/ops/bad.py": ("from telegrad.tensor import Tensor", "telegrad.ops may import"),
    "client/telegrad/nn/bad.py": ("import telegrad_server.worker", "the client never imports the server"),
    "client/telegrad/bad.py": ("import grpc", "which belongs to"),
    "server/telegrad_server/bad.py": ("from telegrad.session import connect", "telegrad_server may import"),
    "server/telegrad_server/sessions.py": ("import telegrad_server.worker", "telegrad_server.sessions may import"),
    "server/telegrad_server/compiler/bad.py": ("from telegrad_server.executors import base", "compiler may import"),
    "server/telegrad_server/cluster/collectives/bad.py": (
        "import telegrad_server.worker",
        "telegrad_server.cluster.collectives may import",
    ),
    "server/telegrad_server/worse.py": ("import pickle", "imports pickle"),
    "server/telegrad_server/worst.py": ("eval('1')", "calls eval"),
    "client/telegrad/utils.py": ("", "named for no idea"),
}


@pytest.mark.parametrize("path", PLANTED)
def test_a_planted_violation_is_found(path: str, tmp_path: Path) -> None:
    source, expected = PLANTED[path]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)

    assert any(expected in line for line in architecture.violations(tmp_path))


def test_no_module_has_grown_past_a_second_idea() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in architecture.modules(architecture.ROOT)}
    # elementwise is a flat table of small rows
    long = {name: n for name, n in lengths.items() if n > 600 and name != "telegrad.ops.elementwise"}

    assert long == {}


@pytest.mark.parametrize(
    "module",
    [
        tg,
        nn,
        optim,
        tg.random,
        tg.linalg,
        nn.functional,
        nn.init,
        nn.utils,
        nn.utils.parametrize,
        nn.utils.parametrizations,
        tg.models,
        tg.safetensors,
        tg.training,
        tg.training.metrics,
        errors,
    ],
    ids=lambda m: m.__name__,
)
def test_every_public_name_has_a_docstring(module: object) -> None:
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    objects = {name: getattr(module, name) for name in names}
    bare = [
        name
        for name, thing in objects.items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and getattr(thing, "__module__", "").startswith("telegrad")
        and not (thing.__doc__ or "").strip()
    ]

    assert bare == []


@pytest.mark.parametrize("cls", [tg.Tensor, tg.Variable, tg.Session, tg.Scope, nn.Module, optim.Optimizer])
def test_every_public_method_has_a_docstring(cls: type) -> None:
    bare = [
        name
        for name, thing in vars(cls).items()
        if not name.startswith("_") and (inspect.isfunction(thing) or isinstance(thing, property)) and not thing.__doc__
    ]

    assert [name for name in bare if not _inherited_doc(cls, name)] == []


def _inherited_doc(cls: type, name: str) -> bool:
    return any(getattr(base.__dict__.get(name), "__doc__", None) for base in cls.__mro__[1:])


def test_everything_public_is_there() -> None:
    for module in (tg, nn, nn.functional, nn.utils, optim, tg.models, tg.safetensors, tg.training):
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert missing == []
        assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("op", sorted(registry()))
def test_every_ops_attributes_can_be_checked_on_the_wire(op: str) -> None:
    check_annotations(registry()[op])


def test_importing_the_client_loads_neither_server_nor_grpc_nor_a_gpu() -> None:
    code = (
        "import sys, telegrad; "
        "print([m for m in ('telegrad_server', 'grpc', 'cupy', 'ray', 'scipy', 'torch') if m in sys.modules])"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
