"""The wheel, installed alone in clean environments: thin, quick to import, and able to train on embedded NumPy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parent.parent

# all that `pip install telegrad` brings, through its dependencies' dependencies
THIN = {
    "click", "grpcio", "markdown-it-py", "mdurl", "ml-dtypes", "numpy", "protobuf", "pygments", "rich", "telegrad",
    "typing-extensions",
}  # fmt: skip

TRAIN = """
import numpy as np, telegrad as tg
from telegrad import nn, optim
with tg.connect() as session:
    assert session.backend == "numpy", session.backend
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 4)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 3.0, 0.5], np.float32))[:, None]
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 1))
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    @tg.function
    def step(x, y):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.minimize(loss)
        return loss
    first = step(x, y).item()
    for _ in range(200):
        loss = step(x, y)
    assert loss.item() < first / 10, (first, loss.item())
print("trained")
"""

# processor time: a busy machine must not fail the test
IMPORT = "import time; t = time.thread_time(); import telegrad; print(time.thread_time() - t)"
"""Processor time of the importing thread: what else the machine does, or BLAS starts beside it, does not count."""


def interpreters() -> list[str]:
    """The Pythons 3.11 to 3.13 that this machine has."""
    found: dict[str, str] = {}
    roots = [Path(p) for p in (os.environ.get("PYENV_ROOT", ""),) if p]
    for minor in (11, 12, 13):
        candidates = [shutil.which(f"python3.{minor}")]
        candidates += [str(p) for root in roots for p in root.glob(f"versions/3.{minor}.*/bin/python3.{minor}")]
        for candidate in filter(None, candidates):
            done = subprocess.run(
                [candidate, "-c", "import sys, venv; print(sys.version_info[1])"], capture_output=True, text=True
            )
            if done.returncode == 0 and done.stdout.strip() == str(minor):
                found.setdefault(f"3.{minor}", candidate)
    found.setdefault(f"3.{sys.version_info[1]}", sys.executable)
    return list(found.values())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session", params=interpreters(), ids=lambda p: Path(p).name)
def python(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clean")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    subprocess.run([request.param, "-m", "venv", folder], check=True, env=clean)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True, env=clean)
    yield python
    shutil.rmtree(folder)


def run(python: Path, code: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.check_output([python, "-c", code], text=True, env=clean, cwd="/")


def test_the_wheel_holds_both_packages_and_no_tests(wheel: Path) -> None:
    import zipfile

    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {n for n in names if not n.endswith(".dist-info")} == {"telegrad", "telegrad_server"}


def test_the_wheel_holds_all_files_of_the_web_page(wheel: Path) -> None:
    import zipfile

    folder = "telegrad_server/web/static"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(folder)}

    assert names == {f"{folder}/{path.name}" for path in (ROOT / "server" / folder).iterdir()}


def test_the_wheel_holds_the_sources_of_the_kernel_library(wheel: Path) -> None:
    import zipfile

    folder = "telegrad_server/library"
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(folder)}

    assert names == {f"{folder}/{path.name}" for path in (ROOT / "server" / folder).iterdir()}


def test_installing_alone_gives_the_thin_client(python: Path) -> None:
    code = (
        "from importlib.metadata import distributions;"
        " print(*{d.metadata['Name'].lower().replace('_', '-') for d in distributions()})"
    )

    installed = set(run(python, code).split()) - {"pip", "setuptools", "wheel"}

    assert installed <= THIN


def test_the_import_takes_less_than_0_3_seconds(python: Path) -> None:
    run(python, IMPORT)  # compiles the bytecode

    assert min(float(run(python, IMPORT)) for _ in range(5)) < 0.3


def test_embedded_numpy_trains(python: Path) -> None:
    assert run(python, TRAIN).strip() == "trained"
