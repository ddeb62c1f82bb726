"""RESULTS.md: sections that are written one by one, each with the date, the machine and the versions of its own run."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

FILE = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results

Written by `scripts/bench`, section by section. Goals are those of the design; ratios are within one run.
"""


@dataclass(frozen=True)
class Table:
    """A table, or what stands above it."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def text(self) -> str:
        """Its lines in Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Section:
    """What one run found out about one question. ``packages`` are those whose versions matter."""

    title: str
    about: str
    tables: tuple[Table, ...]
    packages: tuple[str, ...] = ("numpy", "grpcio")

    def text(self) -> str:
        """The section in Markdown, with the run that it is of."""
        parts = [
            f"## {self.title}",
            f"- date: {datetime.date.today()}\n- machine: {machine()}\n- versions: {versions(self.packages)}",
            self.about,
            *[table.text() for table in self.tables],
        ]
        return "\n\n".join(parts) + "\n"


def write_section(section: Section, file: Path = FILE) -> None:
    """Put a section in the place of the one of its title, or behind all others."""
    old = file.read_text() if file.exists() else ""
    sections = {_title(part): part.strip() + "\n" for part in re.split(r"^(?=## )", old, flags=re.M)[1:]}
    sections[section.title] = section.text()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([HEAD, *sections.values()]))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> str:
    """What it ran on: the processor, its cores, the system, and how busy it was."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
    load = os.getloadavg()[0]
    return f"{found[1] if found else platform.machine()}, {cores()} cores, {platform.system()}, load {load:.1f}"


def versions(packages: Sequence[str]) -> str:
    """Ours, Python's and those of packages; one that is missing is left out."""
    found = [f"telegrad {metadata.version('telegrad')}", f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            pass
    return ", ".join(found)


def _title(part: str) -> str:
    return part.partition("\n")[0].removeprefix("## ").strip()
