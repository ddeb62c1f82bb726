"""``telegrad token``: makes tokens for a server's token file, hashes them, and asks a server whether it takes one."""

from __future__ import annotations

import hashlib
import secrets
import sys

import click

from telegrad.cli.report import Reporting, json_option, write_json
from telegrad.cli.target import Target, asks_a_server
from telegrad.errors import AccessError
from telegrad.transport.access import read_token_file


@click.group()
def token() -> None:
    """Make, hash and check tokens."""


@token.command("new", cls=Reporting)
@click.argument("tenant")
@click.option("--weight", type=click.FloatRange(0.01, 100), help="The share of its sessions beside others'.")
@json_option
def new(tenant: str, weight: float | None, as_json: bool) -> None:
    """Make a token for TENANT: the token, for the client, and the line for the server's token file.

    The line has the token's hash, so the server's file gives no token away. Add it, restart the server, and give the
    token to the client: it is not kept anywhere.
    """
    if len(tenant.split()) != 1 or not tenant.isprintable():
        raise click.UsageError(f"{tenant!r} is no tenant's name; it must be one word")
    fresh = f"telegrad_{secrets.token_urlsafe(32)}"
    line = " ".join([hash_of(fresh), tenant, *([f"{weight:g}"] if weight is not None else [])])
    if as_json:
        write_json({"token": fresh, "hash": hash_of(fresh), "tenant": tenant, "line": line})
        return
    click.echo(f"token  {fresh}")
    click.echo(f"line   {line}")


@token.command("hash", cls=Reporting)
@click.option("--token-file", metavar="FILE", help="The token's file; without it standard input is read.")
@json_option
def hash_(token_file: str | None, as_json: bool) -> None:
    """Print a token's hash, which may stand in a server's token file in its place."""
    given = read_token_file(token_file) if token_file is not None else sys.stdin.readline().strip()
    if len(given) < 16:
        raise AccessError("a token has 16 characters or more; make one with telegrad token new TENANT")
    if as_json:
        write_json({"hash": hash_of(given)})
        return
    click.echo(hash_of(given))


@token.command("check", cls=Reporting)
@asks_a_server
@json_option
def check(target: Target, as_json: bool) -> None:
    """Ask SERVER whether it takes the token; exit status 4 if not."""
    from telegrad.transport.hello import ask, wants_token  # loads gRPC

    given, ca_cert, seconds = target.find_token(), target.ca_cert, target.timeout_seconds
    ask(target.address, token=given, ca_cert=ca_cert, timeout_seconds=seconds)
    is_wanted = wants_token(target.address, ca_cert=ca_cert, timeout_seconds=seconds)
    if given is None and is_wanted:
        raise AccessError(
            f"{target.address} wants a token, and there is none; run telegrad login, or set TELEGRAD_TOKEN_FILE",
            reason="TOKEN_MISSING",
        )
    if as_json:
        write_json({"address": target.address, "is_wanted": is_wanted, "is_given": given is not None})
        return
    click.echo(f"{target.address} takes the token" if is_wanted else f"{target.address} wants no token")


def hash_of(token: str) -> str:
    """As a server's token file has it. A token is random and long, so its plain hash tells nothing of it."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
