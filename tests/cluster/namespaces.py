"""Network namespaces as hosts: each with its own address, name and memory, and a link that can be cut."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT.parent / "shared/cluster/hosts.sh"


def are_possible() -> bool:
    """Whether this machine can have hosts."""
    return SCRIPT.exists() and os.geteuid() == 0


def address(host: int) -> str:
    """The address of a host, from 1."""
    return f"10.231.7.{10 + host}"


class Hosts:
    """Hosts 1 to ``count``, and the programs that were started on them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._programs: list[Program] = []

    def run(self, host: int, *words: str, **environment: str) -> Program:
        """A Python program on a host, with the host's name and a /dev/shm of its own."""
        setting = f'mount -t tmpfs tmpfs /dev/shm && hostname tghost{host} && exec "$@"'
        command = ["ip", "netns", "exec", f"tghost{host}", "unshare", "--mount", "--uts", "sh", "-c", setting, "sh"]
        program = Program([*command, sys.executable, *words], {**os.environ, **environment})
        self._programs.append(program)
        return program

    def cut(self, host: int) -> None:
        """Drop every packet from and to a host."""
        subprocess.check_call([SCRIPT, "cut", str(host)])

    def heal(self, host: int) -> None:
        """Let them pass again."""
        subprocess.check_call([SCRIPT, "heal", str(host)])

    def freeze(self, host: int) -> None:
        """Let every process of a host stand still, while its kernel answers."""
        self._signal(host, signal.SIGSTOP)

    def thaw(self, host: int) -> None:
        """Let them go on."""
        self._signal(host, signal.SIGCONT)

    def _signal(self, host: int, number: signal.Signals) -> None:
        for pid in subprocess.check_output(["ip", "netns", "pids", f"tghost{host}"], text=True).split():
            os.kill(int(pid), number)

    def kill_all(self) -> None:
        """End what runs on the hosts."""
        for host in range(1, self.count + 1):
            self._signal(host, signal.SIGKILL)
        for program in self._programs:
            program.close()


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts, and in the end nothing of them. One at a time on a machine, whose names they are.

    What a run that was killed has left is taken away first: with its hosts in the way, none could be made.
    """
    with (Path(tempfile.gettempdir()) / "telegrad-hosts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _take_away()
        subprocess.check_call([SCRIPT, "up", str(count)])
        made = Hosts(count)
        try:
            yield made
        finally:
            made.kill_all()
            _take_away()


def _take_away() -> None:
    """End every host that there is, and what runs on it."""
    found = subprocess.check_output(["ip", "netns", "list"], text=True)
    names = {line.split()[0] for line in found.splitlines()}
    left = [int(name.removeprefix("tghost")) for name in names if name.startswith("tghost")]
    for host in left:
        for pid in subprocess.check_output(["ip", "netns", "pids", f"tghost{host}"], text=True).split():
            os.kill(int(pid), signal.SIGKILL)
    subprocess.check_call([SCRIPT, "down", str(max(left, default=0))])


class Program:
    """A process whose lines of output are read as they come; those that are JSON are events."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)

    def line(self, seconds: float = 30.0) -> str:
        """The next line. AssertionError if the program has ended, or says nothing for so long."""
        try:
            found = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing was said for {seconds} s") from None
        assert found is not None, f"it ended with {self.process.wait()}"
        return found

    def until(self, kind: str, seconds: float = 60.0) -> Any:
        """The value of the next event of a kind, passing others by."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.line(max(0.1, deadline - time.monotonic()))
            event = json.loads(found) if found.startswith("{") else {}
            assert "error" not in event or kind == "error", event
            if kind in event:
                return event[kind]

    def say(self, word: str = "") -> None:
        """A line for the program to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """Wait for its end, and let go of it."""
        self.process.wait(30)
        self._thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
