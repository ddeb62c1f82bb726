"""What every life of a server imports, imported once: `lives` forks from here."""

import telegrad_server.main
import telegrad_server.roles.alone
import telegrad_server.service

__all__ = ["telegrad_server"]
