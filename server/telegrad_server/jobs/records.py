"""Events as text and back: JSON of their fields, without those that have their default. One encoder for all.

Readable in a journal with nothing but SQLite's shell; an older journal's events get the defaults of newer fields.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

from telegrad.errors import DataCorrupt, VersionMismatch

from telegrad_server.jobs import events as e


def text_of(event: e.Event) -> str:
    """The event's fields; metrics are kept elsewhere."""
    found = {f.name: getattr(event, f.name) for f in fields(event) if f.name != "rows"}
    kept = {f.name: found[f.name] for f in fields(event) if f.name in found and found[f.name] != f.default}
    return json.dumps(kept, separators=(",", ":"), allow_nan=False)


def event_of(kind: str, text: str) -> e.Event:
    """The event. VersionMismatch for a kind or a field of a newer program, DataCorrupt for what is no event."""
    cls: Any = e.KINDS.get(kind)
    if cls is None:
        raise VersionMismatch(f"the journal has an event {kind[:64]!r} that is not known here; update the server")
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise DataCorrupt(f"the journal has an event {kind} whose fields cannot be read: {error}") from error
    if type(found) is not dict:
        raise DataCorrupt(f"the journal has an event {kind} whose fields are no object")
    known = {f.name: f for f in fields(cls)}
    unknown = [name for name in found if name not in known]
    missing = [f.name for f in known.values() if f.name not in found and f.default is MISSING]
    if unknown:
        raise VersionMismatch(
            f"the journal has an event {kind} with a {unknown[0][:64]!r} that is not known here; update"
        )
    if missing:
        raise DataCorrupt(f"the journal has an event {kind} without its {missing[0]}")
    return cls(**found)
