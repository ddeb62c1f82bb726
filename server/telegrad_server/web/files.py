"""The page's own files: in the package, read once, with digests as ETags. No build step, nothing from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is served."""

    body: bytes
    type: str
    tag: str


def tag_of(body: bytes) -> str:
    """An ETag that is the same for the same bytes only."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def page_files() -> dict[str, File]:
    """All files, by the path at which they are served."""
    found: dict[str, File] = {}
    for entry in files("telegrad_server.web").joinpath("static").iterdir():
        type = TYPES.get(PurePosixPath(entry.name).suffix)
        if type is not None:
            body = entry.read_bytes()
            found[f"/{entry.name}"] = File(body, type, tag_of(body))
    found["/"] = found["/index.html"]
    return found
