"""A session's companions in a cluster: those that it commands, or the home that commands it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from telegrad.errors import GraphError, TelegradError
from telegrad.wire import messages as m

from telegrad_server.cluster.crew import Crew
from telegrad_server.cluster.groups import Groups
from telegrad_server.cluster.parts import Parts
from telegrad_server.compiler.plan import Plan
from telegrad_server.elsewhere import Elsewhere
from telegrad_server.executors.company import Company
from telegrad_server.functions import Functions, Known
from telegrad_server.tree import Division


class Together:
    """A session's companions: its own crew, or the group of the home that commands it."""

    def __init__(
        self,
        session_id: str,
        groups: Groups,
        functions: Functions,
        crew: Crew,
        parts: Parts,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._session_id = session_id
        self._groups = groups
        self._functions = functions
        self.crew = crew
        self.parts = parts
        self._waiting = waiting

    def join(self, group: m.JoinGroup) -> None:
        with self._waiting():
            self._groups.join(self._session_id, group)

    def share(self, known: Known, run: m.Run) -> tuple[Plan, AbstractContextManager[None]]:
        communicator = self._groups.find(self._session_id, run.group)
        how = self._functions.replication_of(known)
        if communicator.size > how.taking:
            raise GraphError(f"{how.taking} replicas are too few for a group of {communicator.size}")
        division = Division.even(how.taking, size=communicator.size)
        try:
            plan = self._functions.share_of(known, division, communicator.rank)
        except TelegradError as error:
            communicator.abort(error.message)
            raise
        return plan, Company(communicator, division, step=run.step, waiting=self._waiting).present()

    def run(self, known: Known, run: m.Run, operands: Sequence[Any]) -> list[Any]:
        return self.crew.run(known, run, operands, waiting=self._waiting)

    def place(self, known: Known, run: m.Run, operands: Sequence[Any], *, brought: Sequence[bool]) -> list[Any]:
        if known.is_replicated:
            raise GraphError(
                "a function with replicas uses tensors that live on other workers; it can use those at home"
            )
        return self.parts.run(known, run, operands, brought=brought, waiting=self._waiting)

    def fetch(self, value: Elsewhere) -> bytes:
        return self.parts.fetch(value, waiting=self._waiting)

    def close(self) -> None:
        """The session is over. May wait for threads."""
        self.parts.close()
        self.crew.close()
        self._groups.leave(self._session_id)
