"""Runs a Python module in a process that ends when its parent does: ``python -m …tied PARENT SIGNAL MODULE ARGUMENTS``.

A parent that is killed cannot kill its children, and a worker without an owner would hold its device. On Linux the
kernel sends the signal when the *thread* that made this process ends, so that one must live as long as the parent.
Elsewhere a thread looks whether the parent is still there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
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


def adopt() -> None:
    """Become the parent of descendants whose own parents end, so that `end_children` finds them. On Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill every child of this process and, after `adopt`, the children that they leave. On Linux only."""
    while children := list(_children()):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):  # somebody else here has heard of its end
                os.waitpid(pid, 0)


def _children() -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = entry.read_text().rpartition(") ")
        except OSError:
            continue  # it has ended meanwhile
        if int(rest.split()[1]) == os.getpid():
            yield int(entry.parent.name)


def main() -> None:
    """Tie this process to its parent and become the module."""
    parent, number, module, *arguments = sys.argv[1:]
    signal.Signals(int(number))
    tie(int(parent), int(number))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
