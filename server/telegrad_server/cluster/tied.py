"""Runs a Python module in a process that ends when its parent does: ``python -m …tied PARENT SIGNAL MODULE ARGUMENTS``.

A parent that is killed cannot kill its children, and a worker without an owner would hold its device. On Linux the
kernel sends the signal when the *thread* that made this process ends, so that one must live as long as the parent.
Elsewhere a thread looks whether the parent is still there.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.5


def command(signal_number: int, module: str, arguments: Sequence[str]) -> list[str]:
    """The command line of a child of this process that runs ``module`` and gets the signal when this process ends."""
    return [sys.executable, "-P", "-m", __spec__.name, str(os.getpid()), str(int(signal_number)), module, *arguments]


def tie(parent: int, signal_number: int) -> None:
    """Ask for the signal when the parent ends; it comes at once if the parent has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    else:
        threading.Thread(target=_look, args=(parent, signal_number), daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def _look(parent: int, signal_number: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal_number)


def main() -> None:
    """Tie this process to its parent and become the module."""
    parent, number, module, *arguments = sys.argv[1:]
    signal.Signals(int(number))
    tie(int(parent), int(number))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
