"""telegrad: the public surface is put together when all parts are in."""

__version__ = "0.1.0"
