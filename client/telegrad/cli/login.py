"""``telegrad login``: checks a server and keeps how to reach it as a profile."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from telegrad.cli.report import Reporting, json_option, write_json
from telegrad.errors import AccessError
from telegrad.profiles import Profile, is_name, read_profiles, write_profiles
from telegrad.transport.access import parse_address


@click.command(cls=Reporting)
@click.argument("address")
@click.option("--profile", "name", metavar="NAME", default="default", show_default=True, help="Its name.")
@click.option("--ca-cert", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="PEM file, for grpcs://.")
@click.option("--token-file", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Kept by its path.")
@click.option("--with-token", is_flag=True, help="Read the token from standard input and keep it in the profile.")
@click.option("--make-default", is_flag=True, help="Mean this profile where none is named; the first one is.")
@click.option("--no-check", is_flag=True, help="Do not ask the server first.")
@click.option("--timeout-seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@json_option
def login(
    address: str,
    name: str,
    ca_cert: str | None,
    token_file: str | None,
    with_token: bool,
    make_default: bool,
    no_check: bool,
    timeout_seconds: float,
    as_json: bool,
) -> None:
    """Keep how to reach ADDRESS as a profile, once the server has taken the token.

    A token is never an argument, which others on this machine could read: it comes from a file, from standard input,
    or is asked for.
    """
    if not is_name(name):
        raise click.UsageError(f"{name!r} is no name; use letters, digits, dots, dashes and underscores")
    if token_file is not None and with_token:
        raise click.UsageError("--token-file and --with-token both give a token; use one of them")
    where = parse_address(address)
    if ca_cert is not None and not where.is_secure:
        raise click.UsageError("--ca-cert is for grpcs:// addresses, which have TLS")
    profile = Profile(address, _absolute(ca_cert), _absolute(token_file), _token(token_file, with_token))
    if not no_check:
        _check(profile, timeout_seconds)
    found = read_profiles().put(name, profile)
    if make_default:
        found = replace(found, default=name)
    path = write_profiles(found)
    if as_json:
        write_json({"profile": name, "address": address, "is_default": found.default == name, "path": str(path)})
        return
    click.echo(f'profile {name} is kept in {path}; in Python: tg.connect("{name}")')
    if found.default == name:
        click.echo("it is the default one: telegrad status asks this server")


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _token(token_file: str | None, with_token: bool) -> str | None:
    if token_file is not None:
        return None
    if with_token:
        token = sys.stdin.readline().strip()
        if not token:
            raise click.UsageError("--with-token: standard input is empty; write the token there")
        return token
    if not sys.stdin.isatty():
        return None
    return click.prompt("Token (empty for none)", default="", show_default=False, hide_input=True).strip() or None


def _check(profile: Profile, timeout_seconds: float) -> None:
    """Raise what is wrong: nobody there, the token unknown, or none where one is wanted."""
    from telegrad.transport.hello import ask, wants_token  # loads gRPC

    token = profile.find_token()
    ask(profile.address, token=token, ca_cert=profile.ca_cert, timeout_seconds=timeout_seconds)
    if token is None and wants_token(profile.address, ca_cert=profile.ca_cert, timeout_seconds=timeout_seconds):
        raise AccessError(
            f"{profile.address} wants a token; give it with --token-file FILE or --with-token", reason="TOKEN_MISSING"
        )
