"""The manifest of a checkpoint: what it is the state of, and the length and digest of every other file of it.

It is JSON in one spelling, so that a manifest is right only if its bytes are those that writing it again would give;
with the digest of itself that it ends with, no bit of it can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from telegrad.errors import DataCorrupt
from telegrad.ir.types import BY_NAME, MAX_RANK, Type

NAME = "manifest.json"
LARGEST = 64 << 20
"""Bytes: a million tensors."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of tensors."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """The state that a checkpoint holds, before its files are written.

    ``job`` is unique among all tenants; ``step`` counts updates; ``epoch`` and ``cursor`` say where in the data the
    next step begins, in rows of the epoch; ``calls`` counts calls of the step function, from which and from ``seed``
    its random numbers follow.
    """

    job: str
    step: int
    epoch: int
    cursor: int
    calls: int
    seed: int
    spec_digest: str
    fingerprint: str
    metrics: Mapping[str, float]
    tensors: Mapping[str, Type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Draft):
    """A checkpoint as it was written."""

    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        """What tells its bytes from those of any other checkpoint."""
        return hashlib.sha256("".join([shard.sha256 for shard in self.shards]).encode()).hexdigest()


def with_shards(draft: Draft, shards: tuple[Shard, ...]) -> Manifest:
    """The manifest of what was drafted, and these files."""
    return Manifest(**{f.name: getattr(draft, f.name) for f in fields(Draft)}, shards=shards)


def encode(manifest: Manifest) -> bytes:
    """The bytes of the file."""
    record = {
        "format": FORMAT,
        **{f.name: getattr(manifest, f.name) for f in fields(Draft)},
        "metrics": {name: _number(value) for name, value in manifest.metrics.items()},
        "tensors": {name: [type.dtype.name, *type.shape] for name, type in manifest.tensors.items()},
        "shards": [[s.file, s.bytes, s.sha256] for s in manifest.shards],
    }
    body = json.dumps(record, sort_keys=True, indent=1, allow_nan=False)
    return _sealed(body.encode())


def decode(data: bytes, source: str) -> Manifest:
    """The manifest in the bytes of a file; DataCorrupt, naming ``source``, unless every one of them is right."""
    try:
        record = json.loads(data)
        body, _, _ = data.rpartition(b',\n "sha256"')
        if _sealed(body + b"\n}") != data:
            raise ValueError("its digest is that of other bytes")
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}, and {FORMAT} is known here")
        manifest = _manifest(record)
        if encode(manifest) != data:
            raise ValueError("it is spelled as no manifest is")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        message = f"{source} is no manifest of a checkpoint: {error}; an older checkpoint may do"
        found = hashlib.sha256(data).hexdigest()
        raise DataCorrupt(message, file=NAME, expected="a manifest", found=found) from None
    return manifest


def _manifest(record: dict[str, Any]) -> Manifest:
    if type(record["seed"]) is not int:
        raise ValueError("its seed is no integer")
    return Manifest(
        job=_text(record["job"]),
        step=_count(record["step"]),
        epoch=_count(record["epoch"]),
        cursor=_count(record["cursor"]),
        calls=_count(record["calls"]),
        seed=record["seed"],
        spec_digest=_text(record["spec_digest"]),
        fingerprint=_text(record["fingerprint"]),
        metrics={name: float(value) for name, value in record["metrics"].items()},
        tensors={name: _type(row) for name, row in record["tensors"].items()},
        shards=tuple(Shard(_text(file), _count(size), _text(sha256)) for file, size, sha256 in record["shards"]),
    )


def _sealed(body: bytes) -> bytes:
    """The JSON object with its own digest as the last of its fields."""
    return body[:-2] + b',\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def _number(value: float) -> float | str:
    """As JSON knows it: what is not finite is a word."""
    return float(value) if math.isfinite(value) else str(float(value))


def _type(row: list[Any]) -> Type:
    name, *shape = row
    if len(shape) > MAX_RANK:
        raise ValueError(f"a tensor of {len(shape)} axes")
    return Type(tuple(_count(n) for n in shape), BY_NAME[name])


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r:.40} is no natural number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value
