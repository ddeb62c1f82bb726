"""The wire contract: generated code is up to date, and everything in it has a comment."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROTOS = sorted((ROOT / "proto").rglob("*.proto"))
DECLARATION = re.compile(
    r"^\s*(service|rpc|message|enum|oneof)\s+\w+|^\s*(optional |repeated )?[\w.]+ \w+ = \d+;|^\s*[A-Z_0-9]+ = \d+;"
)


@pytest.mark.slow
def test_generated_code_is_what_the_protos_say() -> None:
    done = subprocess.run([ROOT / "scripts/proto", "--check"], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("proto", PROTOS, ids=lambda p: p.name)
def test_every_declaration_has_a_comment(proto: Path) -> None:
    lines = proto.read_text().splitlines()
    bare = [
        line.strip()
        for i, line in enumerate(lines)
        if DECLARATION.match(line)
        and not line.strip().startswith(("package", "syntax"))
        and not lines[i - 1].strip().startswith("//")
    ]

    assert bare == []


@pytest.mark.parametrize("proto", PROTOS, ids=lambda p: p.name)
def test_field_numbers_are_used_once(proto: Path) -> None:
    for body in re.findall(r"(?:message|enum) \w+ \{(.*?)^\}", proto.read_text(), re.DOTALL | re.MULTILINE):
        numbers = re.findall(r"= (\d+);", body)
        assert len(numbers) == len(set(numbers))
