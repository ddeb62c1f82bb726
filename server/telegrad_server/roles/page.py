"""The web page as its operator wants it: where, with what in front, over what the role has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from telegrad_server import __version__
from telegrad_server.access import Gate
from telegrad_server.config import Config

if TYPE_CHECKING:
    from telegrad_server.web.endpoint import Endpoint
    from telegrad_server.web.sources import Hardware, JobBook, Shelf


def open_page(
    config: Config, gate: Gate, hardware: Hardware, *, jobs: JobBook | None, datasets: Shelf | None
) -> Endpoint | None:
    """The page, being served; None if none is wanted. OSError if its address cannot be bound."""
    if config.web_host is None:
        return None
    from telegrad_server.web.endpoint import Endpoint, tls_context  # h11: who wants no page does without
    from telegrad_server.web.site import Site
    from telegrad_server.web.sources import Sources

    cert, key = config.tls_cert, config.tls_key
    tls = tls_context(cert, key) if cert is not None and key is not None else None
    site = Site(gate, Sources(config.role, __version__, hardware, jobs, datasets))
    endpoint = Endpoint(site, host=config.web_host, port=config.web_port, tls=tls)
    endpoint.start()
    return endpoint
