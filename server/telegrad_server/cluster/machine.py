"""Which machine this is: processes of one machine, and only they, share memory."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """A word that two processes share if they see the same /dev/shm: of one kernel, and one mount of it."""
    try:
        boot = _BOOT.read_text().strip()
        shared = os.stat("/dev/shm")
        mount = f"{shared.st_dev}:{shared.st_ino}"
    except OSError:
        boot, mount = socket.gethostname(), ""
    return hashlib.sha256(f"{boot}:{mount}".encode()).hexdigest()[:16]
