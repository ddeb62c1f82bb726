"""What an operator registers: ``digits=/data/digits.npz,book=/data/book.txt?window=257``.

A kind is told by the path: ``.npy``, ``.npz``, ``.safetensors``, ``.parquet``, ``.txt``, or a folder of images; another
one by ``kind=``. A folder of Parquet files is ``/data/clicks?kind=parquet`` or ``/data/clicks/*.parquet``.
``s3://bucket/digits.npz`` is fetched from there; whether it is there is not asked at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from telegrad.errors import GraphError, ResourceError
from telegrad.wire.naming import check_name

_BY_SUFFIX = {".npy": "npy", ".npz": "npz", ".safetensors": "safetensors", ".parquet": "parquet", ".txt": "text"}
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "npy": (),
    "npz": (),
    "safetensors": (),
    "parquet": ("columns", "shuffle_bytes"),
    "text": ("window", "stride"),
    "images": ("size", "mode"),
}


@dataclass(frozen=True, slots=True)
class Root:
    """A dataset that an operator has registered."""

    name: str
    path: Path
    kind: str
    options: tuple[tuple[str, str], ...] = ()
    url: str = ""
    """Where it is fetched from, if it is not on this machine: ``path`` is then what comes after the bucket."""

    def option(self, name: str, default: str) -> str:
        """An option's value."""
        return dict(self.options).get(name, default)

    def number(self, name: str, default: int) -> int:
        """An option's value as a positive number. ResourceError if it is none."""
        text = self.option(name, str(default))
        if not (text.isascii() and text.isdigit() and int(text)):
            raise ResourceError(f"dataset {self.name!r}: {name} must be a positive number, not {text!r}")
        return int(text)


def parse_roots(text: str) -> tuple[Root, ...]:
    """The roots in a setting. ResourceError, in a sentence, for what is not of its form or not there."""
    roots = tuple(_root(item.strip()) for item in text.split(",") if item.strip())
    for root in roots:
        if [other.name for other in roots].count(root.name) > 1:
            raise ResourceError(f"two datasets are called {root.name!r}; each needs a name of its own")
    return roots


def _is_there(path: Path) -> bool:
    place = str(path)
    return Path(place.partition("*")[0].rpartition("/")[0]).is_dir() if is_pattern(place) else path.exists()


def is_pattern(place: str) -> bool:
    """Whether a path stands for all that are like it, as in ``/data/clicks/*.parquet``."""
    return "*" in place


def _root(item: str) -> Root:
    name, _, rest = item.partition("=")
    place, _, query = rest.partition("?")
    try:
        check_name(name, what="a dataset")
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except (GraphError, ValueError) as error:
        raise ResourceError(f"{item!r} must be NAME=PATH or NAME=PATH?OPTION=VALUE&...: {error}") from None
    scheme, is_remote, rest = place.partition("://")
    path = Path(rest) if is_remote else Path(place)
    kind = options.pop("kind", "images" if not is_remote and path.is_dir() else _BY_SUFFIX.get(path.suffix.lower(), ""))
    if kind not in _OPTIONS:
        raise ResourceError(f"dataset {name!r}: what {path.name!r} is must be said: ?kind= {', '.join(_OPTIONS)}")
    if not place or (is_remote and not (scheme and rest)) or (not is_remote and not _is_there(path)):
        raise ResourceError(f"dataset {name!r}: there is no {place!r}")
    unknown = sorted(options.keys() - set(_OPTIONS[kind]))
    if unknown:
        known = ", ".join(_OPTIONS[kind]) or "none"
        raise ResourceError(f"dataset {name!r}: {kind} has no option {unknown[0]!r}; it has {known}")
    return Root(name, path, kind, tuple(sorted(options.items())), place if is_remote else "")
