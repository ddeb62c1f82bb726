"""``telegrad``: the command line. A module for each command; only the one that is called is loaded.

To add one: a module here with a click command of its own name, made with ``cls=Reporting``, and a row in
`program.COMMANDS`.
"""

from telegrad.cli.program import cli, main

__all__ = ["cli", "main"]
