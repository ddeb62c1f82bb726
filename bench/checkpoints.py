#!/usr/bin/env python3
"""What a checkpoint of 100 MB takes, and for how long it keeps other threads of the process from running.

A thread that does nothing but look at the clock stands for the training beside the write: the longest time between two
of its looks is how long a step could be held up.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from telegrad.wire.arrays import array_bytes, type_of
from telegrad_server.checkpoints import CheckpointStore, Draft, Folders


class Watch:
    """The longest pause of a thread that is always ready to run."""

    def __enter__(self) -> Watch:
        self.longest = 0.0
        self._is_over = False
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def _look(self) -> None:
        before = time.perf_counter()
        while not self._is_over:
            now = time.perf_counter()
            self.longest = max(self.longest, now - before)
            before = now
            time.sleep(0)


def main() -> None:
    """Print the table."""
    arrays = {f"model.{i}.weight": np.random.default_rng(i).random((1280, 2048), np.float32) for i in range(10)}
    draft = Draft(job="bench", step=1, epoch=0, cursor=0, calls=0, seed=0, spec_digest="", fingerprint="", metrics={},
                  tensors={name: type_of(array) for name, array in arrays.items()})  # fmt: skip
    print("| what | seconds | MB/s | longest pause of another thread, ms |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = CheckpointStore(Folders(Path(folder)))
        acts = {
            "nothing (0.3 s of sleep)": lambda: time.sleep(0.3),
            "write": lambda: store.write(draft, ((n, type_of(a), array_bytes(a)) for n, a in arrays.items())),
            "keep(last=1)": lambda: store.keep("bench", last=1),
            "verify": lambda: store.verify("bench"),
            "latest, read through": lambda: sum(len(data) for _, _, data in store.latest("bench").tensors),
        }
        for what, act in [item for _ in range(3) for item in acts.items()]:
            with Watch() as watch:
                begin = time.perf_counter()
                act()
                seconds = time.perf_counter() - begin
            megabytes = sum(a.nbytes for a in arrays.values()) / 1e6
            print(f"| {what} | {seconds:.3f} | {megabytes / seconds:.0f} | {1000 * watch.longest:.1f} |")


if __name__ == "__main__":
    main()
