"""Failures that are our fault: the user gets an id, the log gets the traceback."""

from __future__ import annotations

import logging
import secrets

from telegrad.errors import ServerBug


def bug(error: BaseException) -> ServerBug:
    """What the user is told of an exception that nobody foresaw; nothing of its text."""
    number = secrets.token_hex(6)
    logging.getLogger("telegrad").error("internal error %s", number, exc_info=error)
    return ServerBug(f"the server failed in a way it does not explain; please report error {number}")
