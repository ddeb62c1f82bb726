"""All jobs of the session's tenant, by name: those of other programs and machines too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from telegrad.errors import NotFound
from telegrad.jobs.job import Job

if TYPE_CHECKING:
    from telegrad.transport import JobCalls


class Jobs:
    """Like a mapping from names to jobs; made by `Session.jobs`."""

    def __init__(self, calls: JobCalls) -> None:
        self._calls = calls

    def __getitem__(self, key: str) -> Job:
        """The job of this id, or the newest of this name; NotFound (a KeyError)."""
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise NotFound(f"a job is found by its name or its id, which is text, not {key!r}", reason="JOB_UNKNOWN")
        return Job(self._calls, self._calls.get(key))

    def __contains__(self, key: str) -> bool:
        try:
            self[key]
        except NotFound:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([job.name for job in self.list()]))

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"<jobs {', '.join(self) or 'none yet'}>"

    def list(self) -> list[Job]:
        """All of them, in the order they were submitted."""
        return [Job(self._calls, info) for info in self._calls.list()]
