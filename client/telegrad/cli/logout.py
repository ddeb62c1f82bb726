"""``telegrad logout``: forgets a profile, and the token in it."""

from __future__ import annotations

import click

from telegrad.cli.report import Reporting, json_option, write_json
from telegrad.profiles import read_profiles, write_profiles


@click.command(cls=Reporting)
@click.argument("name")
@json_option
def logout(name: str, as_json: bool) -> None:
    """Forget the profile NAME and the token in it. A token file stays where it is."""
    left = read_profiles().without(name)
    write_profiles(left)
    if as_json:
        write_json({"profile": name, "default": left.default})
        return
    click.echo(f"profile {name} is forgotten; the server still takes its token until the operator removes it there")
