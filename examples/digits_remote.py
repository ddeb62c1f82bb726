"""The digits example against a server: starts a telegrad-server on loopback, trains through it, and stops it."""

from __future__ import annotations

import re
import subprocess
import sys

import digits


def main() -> None:
    """Start a server on a free port, train, stop the server."""
    command = [sys.executable, "-m", "telegrad_server.main", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"listening on (\S+)", line)
        if found is None:
            sys.exit(f"the server did not start: {line}")
        print(line.strip())
        try:
            digits.main(f"grpc://{found[1]}", ca_cert=None, epochs=40)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
