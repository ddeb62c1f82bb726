"""How the memory that a client and a server of one machine share is laid out.

The first page holds what both must know, the others the bytes of Puts. A client writes there and nobody else; the
server says in one number which commands need their bytes no longer.
"""

from __future__ import annotations

import os
import sys

TOKEN_BYTES = 32
"""The memory begins with so many bytes that only the session's two sides know."""

SETTLED = 64
"""Here stands, in eight bytes, the number of the last command whose bytes are no longer needed."""

FIRST_PLACE = 4096
"""The bytes of tensors lie behind the first page, so a place is never 0."""

ROOM_BYTES = 64 << 20
"""So many bytes may be on their way."""

MEMORY_BYTES = FIRST_PLACE + ROOM_BYTES

ALIGNMENT = 64


def can_share() -> bool:
    """Whether there is memory without a name here, and a load stays before a later store: Python has no fences."""
    return sys.platform == "linux" and os.uname().machine == "x86_64"
