"""A peer's process: reads what to do, a line of JSON each, and answers with one.

What libraries print goes to standard error; standard output is the answers' alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.shootout.lines import LINES, MEMORY_LINES
from bench.shootout.memory import growth_bytes
from bench.shootout.peers import PEERS, Feed, Peer


class ChildFailed(Exception):
    """A peer's process could not do what it was asked for."""


class Child:
    """A peer in a process of its own, which does nothing unless asked."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.shootout.child", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def load(self, line: str) -> None:
        """Make the model, with its initial weights."""
        self._ask("load", line)

    def losses(self, count: int) -> tuple[list[float], float]:
        """See `Peer.losses`."""
        losses, first = self._ask("losses", count)
        return losses, first

    def turn(self, feed: Feed, steps: int) -> float:
        """See `Peer.turn`."""
        return self._ask("turn", feed, steps)

    def growth_bytes(self, line: str) -> int:
        """See `memory.growth_bytes`; instead of `load`."""
        return self._ask("growth", line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, *what: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(f"{self.peer} has ended") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise ChildFailed(f"{self.peer} ended while asked for {what}")
        found = json.loads(answer)
        if "error" in found:
            raise ChildFailed(f"{self.peer}: {found['error']}")
        return found["found"]


def serve(peer: str, answer: Callable[[dict[str, Any]], None]) -> None:
    """Do what standard input says until it ends."""
    loaded: Peer | None = None
    for text in sys.stdin:
        what, *arguments = json.loads(text)
        try:
            if what == "load":
                loaded, found = PEERS[peer](LINES[arguments[0]]), None
            elif what == "growth":
                found = growth_bytes(PEERS[peer], MEMORY_LINES[arguments[0]])
            else:
                assert loaded is not None
                found = loaded.losses(*arguments) if what == "losses" else loaded.turn(*arguments)
        except Exception as error:  # the edge: the other process says it
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})
        else:
            answer({"found": found})
    if loaded is not None:
        loaded.close()


def main() -> None:
    """Answers go to what was standard output, whoever prints."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(found: dict[str, Any]) -> None:
        out.write(json.dumps(found) + "\n")
        out.flush()

    serve(sys.argv[1], answer)


if __name__ == "__main__":
    main()
