"""Run the server in its role, until a signal; what is wrong with the settings is one sentence and a status of 2."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from telegrad.errors import TelegradError

from telegrad_server.access import check_exposure
from telegrad_server.config import Config, read_config

SWITCH_SECONDS = 0.0002
"""When kernels are done the thread that computes wants the interpreter, which another one may have just then: Python's
own 5 ms are several steps of a small model."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    config = read_config(arguments, os.environ)
    try:
        return _run(config)
    except TelegradError as error:
        print(f"telegrad-server: {error.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"telegrad-server: {error}", file=sys.stderr)
        return 1


def _run(config: Config) -> int:
    if config.role == "worker" and config.gateway is None and config.ray_address is not None:
        from telegrad_server.roles.worker import bring_host  # no server listens here

        return bring_host(config)
    check_exposure(config)
    sys.setswitchinterval(SWITCH_SECONDS)
    if config.role == "gateway":
        from telegrad_server.roles.gateway import run  # a role loads what it needs
    elif config.role == "worker":
        from telegrad_server.roles.worker import run
    else:
        from telegrad_server.roles.alone import run
    return asyncio.run(run(config))


if __name__ == "__main__":
    sys.exit(main())
