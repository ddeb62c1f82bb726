"""``telegrad profiles``: the servers that have been logged in to. Tokens are never shown."""

from __future__ import annotations

import click

from telegrad.cli.report import Reporting, json_option, write_json
from telegrad.profiles import Profile, profiles_path, read_profiles


@click.command(cls=Reporting)
@json_option
def profiles(as_json: bool) -> None:
    """List the profiles; a star marks the default one."""
    found = read_profiles()
    if as_json:
        entries = [
            {
                "name": name,
                "address": p.address,
                "ca_cert": p.ca_cert,
                "token": _kind(p),
                "is_default": name == found.default,
            }
            for name, p in found.by_name.items()
        ]
        write_json({"path": str(profiles_path()), "profiles": entries})
        return
    if not found.by_name:
        click.echo("no profiles; telegrad login ADDRESS makes one")
    for name, p in found.by_name.items():
        click.echo(f"{'*' if name == found.default else ' '} {name:16} {p.address}  token: {_kind(p) or 'none'}")


def _kind(profile: Profile) -> str | None:
    """Where the token is: "here", the path of a file, or None."""
    return "here" if profile.token is not None else profile.token_file
