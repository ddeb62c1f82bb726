"""What every life of a server imports, imported once: `lives` forks from here."""

import scipy.special
import telegrad_server.main
import telegrad_server.roles.alone
import telegrad_server.roles.gateway
import telegrad_server.roles.worker
import telegrad_server.service

__all__ = ["scipy", "telegrad_server"]
