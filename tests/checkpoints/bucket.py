"""A bucket in memory that remembers the order of what was done to it: a crash leaves what was done before it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from telegrad_server.checkpoints.files import Output


@dataclass
class Memory:
    """Objects, by key. Its calls fail from the ``first`` of them on, ``count`` of them, if that is not negative."""

    objects: dict[str, bytes] = field(default_factory=dict[str, bytes])
    log: list[tuple[str, bytes | None]] = field(default_factory=list[tuple[str, "bytes | None"]])
    first: int = -1
    count: int = 1
    number: int = errno.EIO
    calls: int = 0

    def create(self, key: str) -> Output:
        self.strike()
        return _Open(self, key)

    def read(self, key: str, most_bytes: int) -> memoryview:
        self.strike()
        if key not in self.objects:
            raise FileNotFoundError(errno.ENOENT, key)
        return memoryview(self.objects[key])[:most_bytes]

    def keys(self, folder: str) -> list[str]:
        self.strike()
        return sorted(key for key in self.objects if key.startswith(f"{folder}/"))

    def folders(self) -> list[str]:
        self.strike()
        return sorted({key.partition("/")[0] for key in self.objects})

    def remove(self, key: str) -> None:
        self.strike()
        self.do(key, None)

    def drop_uploads(self, folder: str) -> None:
        self.strike()

    def do(self, key: str, data: bytes | None) -> None:
        """Put or remove an object."""
        self.log.append((key, data))
        self.objects.pop(key, None)
        if data is not None:
            self.objects[key] = data

    def strike(self) -> None:
        """Fail, if it is time."""
        self.calls += 1
        if self.first >= 0 and self.first < self.calls <= self.first + self.count:
            raise OSError(self.number, os.strerror(self.number))

    def after(self, end: int) -> Memory:
        """What a crash leaves that came when so much was done."""
        left = Memory()
        for key, data in self.log[:end]:
            left.do(key, data)
        return left


@dataclass
class _Open:
    bucket: Memory
    key: str
    held: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes | memoryview) -> None:
        self.bucket.strike()
        self.held += data

    def sync(self) -> None:
        self.bucket.strike()
        assert self.key not in self.bucket.objects, "nothing is ever overwritten"
        self.bucket.do(self.key, bytes(self.held))

    def close(self) -> None:
        pass
