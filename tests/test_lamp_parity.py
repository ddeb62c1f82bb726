"""The table of lamp's inventory is whole, its names resolve, and the tests that it names are there."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

from tests.lamp_parity import NOT_YET, SECTIONS, Section, is_missing, page

ROOT = Path(__file__).resolve().parent.parent
ROWS = [pytest.param(row, id=f"{s.title}-{row.lamp}") for s in SECTIONS for row in s.rows if not is_missing(row)]
SECTION = pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.title)


@SECTION
def test_every_name_of_lamp_is_there_once(section: Section) -> None:
    names = [row.lamp for row in section.rows]

    assert len(names) == len(set(names)) == section.count


@SECTION
def test_what_is_missing_is_known(section: Section) -> None:
    assert {row.lamp for row in section.rows if is_missing(row)} == NOT_YET.get(section.title, set())


def test_every_name_resolves() -> None:
    import_module("telegrad.nn"), import_module("telegrad.optim")
    for section in SECTIONS:
        for row in section.rows:
            for name in row.ours:
                reduce(
                    getattr, name.split(".")[1:], import_module("telegrad")
                )  # AttributeError names what is not there


def test_every_test_is_defined() -> None:
    for file, functions in _tests().items():
        tree = ast.parse((ROOT / file).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

        assert functions - defined == set(), file


def _tests() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for section in SECTIONS:
        for row in section.rows:
            for test in row.proof:
                file, function = test.split("::")
                found.setdefault(file, set()).add(function.split("[")[0].removesuffix("*"))
    return found


@pytest.mark.slow
def test_pytest_collects_every_test() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *_tests()]
    ids = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    proofs = {test for section in SECTIONS for row in section.rows for test in row.proof}
    exact, beginnings = set(ids), [p[:-1] for p in proofs if p.endswith("*")]
    assert {p for p in proofs if not p.endswith("*")} - exact == set()
    assert [b for b in beginnings if not any(i.startswith(b) for i in ids)] == []


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs/lamp-parity.md").read_text() == page(), "run scripts/docs"
