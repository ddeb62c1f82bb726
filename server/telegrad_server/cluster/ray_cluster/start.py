"""Brings a host's raylet and stays until it ends: ``telegrad-server --role worker``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from types import FrameType

from telegrad.errors import ResourceError, ServerUnavailable

from telegrad_server.cluster import tied
from telegrad_server.cluster.ray_cluster.settings import (
    RayletSettings,
    check_folder,
    check_ray,
    check_token_file,
    environment,
    raylet_arguments,
)

RAY_COMMAND = f"{__package__}.command"
NAME_SECONDS = 3.0
LOG_VARIABLE = "TELEGRAD_LOG"
"""Where the workers of a host write what they print: the standard error of the process that brought the raylet."""


def resolve(address: str, *, wait_seconds: float) -> str:
    """``HOST:PORT`` with the host as an address, once somebody listens there; ServerUnavailable if nobody does."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ServerUnavailable(f"the address of Ray's head must be HOST:PORT, not {address!r}")
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=2.0) as connection:
                return f"{connection.getpeername()[0]}:{port}"
        except OSError as error:
            if time.monotonic() > deadline:
                raise ServerUnavailable(
                    f"no Ray head answers at {address} ({error}); start the gateway, or correct the address"
                ) from error
        time.sleep(0.2)


def own_address(host: str) -> str:
    """The address that this machine has under a name in one of its networks; "" for "", which lets Ray choose.

    ResourceError if the name is not this machine's.
    """
    if not host:
        return ""
    deadline = time.monotonic() + NAME_SECONDS
    while True:  # in a container that has just begun the name may take a moment
        try:
            found = socket.gethostbyname(host)
            with socket.socket() as probe:
                probe.bind((found, 0))
            return found
        except OSError as error:
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"{host} is no address of this machine ({error.strerror}); correct --ray-host"
                ) from error
        time.sleep(0.1)


def log_path(descriptor: int) -> str:
    """By which path other processes of this host write to an open file of this one."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def run_raylet(settings: RayletSettings, environ: Mapping[str, str]) -> int:
    """Bring this host's raylet and wait until it ends; returns the exit status: 0 after SIGTERM or SIGINT, else 1.

    To be called on the main thread. ResourceError without Ray, AccessError without a good token file,
    ServerUnavailable if there is no head.
    """
    check_ray()
    check_folder(settings.folder)
    token_file = check_token_file(settings.token_file)
    address = resolve(settings.address, wait_seconds=settings.wait_seconds)
    settings = replace(settings, host=own_address(settings.host))
    tied.adopt()
    child = subprocess.Popen(
        tied.command(signal.SIGTERM, RAY_COMMAND, raylet_arguments(settings, address)),
        env={
            **environment(environ, token_file, drain_seconds=settings.drain_seconds),
            LOG_VARIABLE: log_path(sys.stderr.fileno()),
        },
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
    )
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGKILL if stopping else signal.SIGTERM)
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    began = time.monotonic()
    status = child.wait()
    tied.end_children()  # Ray's agents outlive a raylet that gave up
    if stopping:
        return 0
    seconds = time.monotonic() - began
    print(
        f"telegrad-server: Ray ended after {seconds:.0f} s with status {status}: its head at {address} is gone, or"
        f" refused this host; if it never joined, the token in {token_file} or the version of Ray or Python is not the"
        " head's",
        file=sys.stderr,
        flush=True,
    )
    return 1
