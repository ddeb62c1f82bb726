"""Reads the tree's imports, for `test_architecture`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Every hand-written module of both packages, by name."""
    for package in ("client", "server"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root / package).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if ".wire.v1" not in name:
                yield name, path


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a module imports, as dotted names, and whether only for types."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, id(node) in typing_only
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in typing_only


def calls(path: Path) -> Iterator[str]:
    """The names of what a module calls."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


# A module may import from the project only what stands here (itself and what is inside it go without saying).
SHARED = {
    "telegrad.errors": (),
    "telegrad.ir": ("telegrad.errors",),
    "telegrad.ops": ("telegrad.ir", "telegrad.errors"),
    "telegrad.autodiff": ("telegrad.ops", "telegrad.ir", "telegrad.errors"),
    "telegrad.wire": ("telegrad.ops", "telegrad.ir", "telegrad.errors"),
}
PURE = ("telegrad.errors", "telegrad.ir", "telegrad.wire", "telegrad.wire.messages", "telegrad.wire.status")
SERVER = {
    **dict.fromkeys(("telegrad_server.config", "telegrad_server.tally"), ()),
    **dict.fromkeys(("telegrad_server.secrets_folder", "telegrad_server.probe"), ("telegrad.errors",)),
    **dict.fromkeys(
        (
            "telegrad_server.scopes", "telegrad_server.store", "telegrad_server.events", "telegrad_server.offers",
            "telegrad_server.elsewhere",
        ), PURE,
    ),
    "telegrad_server.names": (*PURE, "telegrad_server.scopes", "telegrad_server.store"),
    "telegrad_server.sessions": (
        *PURE, "telegrad_server.names", "telegrad_server.events", "telegrad_server.offers", "telegrad_server.store",
    ),
    **dict.fromkeys(
        ("telegrad_server.cluster.tickets", "telegrad_server.cluster.lease", "telegrad_server.cluster.launcher",
         "telegrad_server.cluster.machine"), PURE,
    ),
    "telegrad_server.cluster.members": (*PURE, "telegrad_server.sights"),
    "telegrad_server.cluster.placement": (*PURE, "telegrad_server.cluster.members"),
    "telegrad_server.cluster.pool": (*PURE, "telegrad_server.cluster.launcher", "telegrad_server.cluster.nodes"),
    "telegrad_server.cluster.local": (*PURE, "telegrad_server.cluster.launcher", "telegrad_server.cluster.tied"),
    "telegrad_server.datasets": PURE,
    "telegrad_server.checkpoints": (
        *PURE, "telegrad.wire.arrays", "telegrad.wire.safetensors", "telegrad_server.failpoints",
        "telegrad_server.tally",
    ),
    "telegrad_server.failpoints": ("telegrad.errors",),
    "telegrad_server.jobs": (
        *PURE, "telegrad.wire.job_calls", "telegrad.wire.job_codec", "telegrad.wire.job_spec", "telegrad_server.tally",
    ),
    "telegrad_server.journal": ("telegrad.errors", "telegrad_server.jobs", "telegrad_server.failpoints"),
    "telegrad_server.ledger": (
        "telegrad.errors", "telegrad_server.jobs", "telegrad_server.failpoints", "telegrad_server.journal",
    ),
    "telegrad_server.keeper": (
        *PURE, "telegrad.wire.job_codec", "telegrad.wire.job_spec", "telegrad_server.checkpoints",
        "telegrad_server.config", "telegrad_server.datasets", "telegrad_server.jobs", "telegrad_server.journal",
        "telegrad_server.ledger",
    ),
    "telegrad_server.intake": (
        *PURE, "telegrad.wire.codec", "telegrad.wire.job_codec", "telegrad.wire.job_spec",
        "telegrad_server.checkpoints", "telegrad_server.datasets", "telegrad_server.jobs", "telegrad_server.keeper",
       "telegrad_server.ledger",
    ),
    "telegrad_server.loops": (
        *PURE, "telegrad.ops", "telegrad.wire", "telegrad_server.bug", "telegrad_server.checkpoints",
        "telegrad_server.compiler.unrolled", "telegrad_server.datasets", "telegrad_server.failpoints",
        "telegrad_server.jobs", "telegrad_server.worker",
    ),
    "telegrad_server.web": (
        *PURE, "telegrad.wire.datasets", "telegrad.wire.jobs", "telegrad.wire.naming",
        "telegrad_server.access", "telegrad_server.bug", "telegrad_server.sights",
    ),
    "telegrad_server.sights": (),
    "telegrad_server.tree": (),
    "telegrad_server.compiler": (
        "telegrad.ir", "telegrad.ops", "telegrad.autodiff", "telegrad.errors", "telegrad.wire.arrays",
        "telegrad_server.tree",
    ),
    "telegrad_server.executors": (
        "telegrad_server.compiler", "telegrad_server.__version__", "telegrad_server", "telegrad.ir", "telegrad.ops",
        "telegrad.errors", "telegrad.wire.arrays", "telegrad_server.tree",
    ),
    "telegrad_server.cluster.collectives": (
        "telegrad.errors", "telegrad_server.tree", "telegrad_server.executors.base",
        "telegrad_server.executors.communicator",
    ),
    "telegrad_server": (
        "telegrad_server", "telegrad.ir", "telegrad.ops", "telegrad.autodiff", "telegrad.wire", "telegrad.errors",
    ),
}  # fmt: skip
OWNERS = {
    "grpc": (
        "telegrad.transport.remote",
        "telegrad.transport.channel",
        "telegrad.transport.remote_datasets",
        "telegrad.transport.remote_jobs",
        "telegrad.transport.remote_checkpoints",
        "telegrad.transport.hello",
        "telegrad.wire.v1",
        "telegrad_server.service",
        "telegrad_server.probe",
    ),
    "grpc_health": ("telegrad_server.service", "telegrad_server.probe"),
    "prometheus_client": ("telegrad_server.metrics",),
    "h11": ("telegrad_server.web",),
    "cryptography": ("telegrad_server.secrets_folder",),
    "google.protobuf": ("telegrad.wire", "telegrad_server.service"),
    "cupy": ("telegrad_server.executors",),
    "cupyx": ("telegrad_server.executors",),
    "ray": ("telegrad_server.cluster.ray_cluster.driver",),
    "scipy": ("telegrad_server.executors",),
}
WITHOUT_NUMPY = ("telegrad.ir", "telegrad.ops", "telegrad.autodiff", "telegrad.errors")
FORBIDDEN_MODULES = ("pickle", "cloudpickle", "marshal", "dill", "shelve")
FORBIDDEN_CALLS = ("eval", "exec", "np.load", "numpy.load", "pickle.loads")
FORBIDDEN_FILES = ("utils", "util", "common", "helpers", "helper", "constants", "misc", "manager")


def inside(name: str, module: str) -> bool:
    """Whether ``name`` is ``module`` or in it."""
    return name == module or name.startswith(module + ".")


def violations(root: Path) -> list[str]:
    """Every rule that the tree breaks, in words."""
    found: list[str] = []
    for name, path in modules(root):
        if path.stem in FORBIDDEN_FILES:
            found.append(f"{name}: a module named for no idea")
        found += [f"{name} calls {call}" for call in calls(path) if call in FORBIDDEN_CALLS]
        for target, typing_only in imports(path):
            found += _import_violations(name, target, typing_only)
    return found


def _import_violations(name: str, target: str, typing_only: bool) -> list[str]:
    found: list[str] = []
    if target.split(".")[0] in FORBIDDEN_MODULES:
        found.append(f"{name} imports {target}")
    for library, owners in OWNERS.items():
        if inside(target, library) and not any(inside(name, owner) for owner in owners):
            found.append(f"{name} imports {target}, which belongs to {', '.join(owners)}")
    if inside(target, "numpy") and any(inside(name, m) for m in WITHOUT_NUMPY) and not typing_only:
        found.append(f"{name} imports {target}")
    if not (inside(target, "telegrad") or inside(target, "telegrad_server")) or typing_only:
        return found
    if inside(name, "telegrad") and inside(target, "telegrad_server"):
        found.append(f"{name} imports {target}: the client never imports the server")
    for rules in (SHARED, SERVER):
        owner = max((m for m in rules if inside(name, m)), key=len, default=None)
        if owner is not None:
            allowed = (*rules[owner], owner)
            if not any(inside(target, a) for a in allowed) and target != "telegrad":
                found.append(f"{name} imports {target}; {owner} may import {', '.join(rules[owner]) or 'nothing'}")
            break
    return found
