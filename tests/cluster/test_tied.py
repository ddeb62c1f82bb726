"""Children that end with their parent, and a parent that ends all it has started."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

PARENT = """
import signal, subprocess, sys, time
from telegrad_server.cluster import tied
child = subprocess.Popen(tied.command(signal.SIGKILL, "http.server", ["--bind", "127.0.0.1", "0"]))
print(child.pid, flush=True)
time.sleep(60)
"""

ENDER = """
import subprocess, sys
from telegrad_server.cluster import tied
tied.adopt()
subprocess.check_output([sys.executable, "-c", "import os, sys\\nif not os.fork():\\n os.setsid(); os.close(1)\\n"
    " import time; time.sleep(60)\\nprint(os.getpid())"], text=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(len(list(tied._children())), flush=True)
tied.end_children()
print(len(list(tied._children())), child.poll() is not None, flush=True)
"""


def is_over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it takes half a second, by looking")
def test_a_tied_child_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    deadline = time.monotonic() + 10
    while "http.server" not in " ".join(psutil.Process(child).cmdline()):
        assert time.monotonic() < deadline

    parent.kill()
    parent.wait()
    parent.stdout.close()

    while not is_over(child):
        assert time.monotonic() < deadline


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt")
def test_all_children_and_the_orphans_among_them_are_ended() -> None:
    said = subprocess.check_output([sys.executable, "-c", ENDER], text=True, timeout=30).split()

    assert said == ["2", "0", "True"]
