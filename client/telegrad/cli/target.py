"""Which server a command is about: an address or a profile's name, and the options that go with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from telegrad.errors import TelegradError
from telegrad.profiles import Profile, read_profiles

VARIABLE = "TELEGRAD_PROFILE"


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask. ``profile`` is the name that led to it, if one did."""

    address: str
    ca_cert: str | None
    timeout_seconds: float
    profile: str | None = None
    entry: Profile = field(default=Profile(""), repr=False)

    def find_token(self) -> str | None:
        """The profile's token, else the environment's. AccessError if its file cannot be used."""
        return self.entry.find_token()


def find_target(server: str | None, profile: str | None, ca_cert: str | None, timeout_seconds: float) -> Target | None:
    """The server that a command line means; None if it names none and no profile is the default.

    UsageError for two servers, NotFound for a profile that is not there.
    """
    if server is not None and profile is not None:
        raise click.UsageError("SERVER and --profile both name a server; give one of them")
    if server is not None and ":" in server:
        return Target(server, ca_cert, timeout_seconds)
    profiles = read_profiles()
    name = server or profile or os.environ.get(VARIABLE) or profiles.default
    if name is None:
        return None
    entry = profiles.find(name)
    return Target(entry.address, ca_cert or entry.ca_cert, timeout_seconds, name, entry)


def asks_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the argument SERVER and its options, as one argument ``target``. UsageError if there is none."""

    @may_ask_a_server
    @wraps(command)
    def asking(target: Target | None, **others: Any) -> None:
        command(target=require_target(target), **others)

    return asking


def require_target(target: Target | None) -> Target:
    """The server, which there must be. UsageError."""
    if target is None:
        raise click.UsageError(
            "no server is named and there is no default profile; give an address (grpc://host:port), or run"
            " telegrad login ADDRESS once"
        )
    return target


def asks_a_server_by_option(command: Callable[..., None]) -> Callable[..., None]:
    """As `asks_a_server` for commands whose arguments are other things: the server is the option --server."""

    @click.option("--server", metavar="SERVER", shell_complete=_complete, help="An address, or a profile's name.")
    @click.option("--profile", metavar="NAME", shell_complete=_complete, help=f"A profile (or {VARIABLE}).")
    @click.option("--ca-cert", metavar="FILE", help="PEM file of the server's authority, for grpcs://.")
    @click.option("--timeout-seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
    @wraps(command)
    def asking(
        server: str | None, profile: str | None, ca_cert: str | None, timeout_seconds: float, **others: Any
    ) -> None:
        command(target=require_target(find_target(server, profile, ca_cert, timeout_seconds)), **others)

    return asking


def may_ask_a_server(command: Callable[..., None]) -> Callable[..., None]:
    """As `asks_a_server`; ``target`` is None if no server is named."""

    @click.argument("server", required=False, shell_complete=_complete)
    @click.option("--profile", metavar="NAME", shell_complete=_complete, help=f"A profile (or {VARIABLE}).")
    @click.option("--ca-cert", metavar="FILE", help="PEM file of the server's authority, for grpcs://.")
    @click.option("--timeout-seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
    @wraps(command)
    def asking(
        server: str | None, profile: str | None, ca_cert: str | None, timeout_seconds: float, **others: Any
    ) -> None:
        command(target=find_target(server, profile, ca_cert, timeout_seconds), **others)

    return asking


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of profiles that begin so; nothing if they cannot be read, since a shell is asking."""
    try:
        profiles = read_profiles()
    except TelegradError:
        return []
    return [CompletionItem(name, help=p.address) for name, p in profiles.by_name.items() if name.startswith(incomplete)]
