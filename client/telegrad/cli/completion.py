"""``telegrad completion``: the script by which a shell completes our commands, options and profiles."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from telegrad.cli.report import Reporting


@click.command(cls=Reporting)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(telegrad completion bash)" in ~/.bashrc; zsh the same in ~/.zshrc; fish: telegrad completion fish >
    ~/.config/fish/completions/telegrad.fish.
    """
    from telegrad.cli.program import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "telegrad", "_TELEGRAD_COMPLETE").source())
