"""``telegrad-server``: a server, or a command: ``init``, ``health``, ``journal``. Loads only what it needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from telegrad.errors import NotFound, TelegradError

from telegrad_server.config import VARIABLES, Config

EXTRA = ("cryptography", "grpc_health", "h11", "prometheus_client")
"""What the thin client does without, and a server does not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        match words:
            case ["init", *rest]:
                return init(rest, os.environ)
            case ["health", *rest]:
                return health(rest, os.environ)
            case ["journal", *rest]:
                return journal(rest, os.environ)
            case _:
                from telegrad_server.main import main as serve  # NumPy and the executors: a probe does without

                return serve(words)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA:
            raise
        print(f"telegrad-server: {error.name} is not here; run pip install 'telegrad[server]'", file=sys.stderr)
        return 2
    except TelegradError as error:
        print(f"telegrad-server: {error.message}", file=sys.stderr)
        return 2


def init(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Make the secrets of a server or a cluster, and say what a client needs. AccessError if that cannot be done."""
    from telegrad_server.secrets_folder import make_secrets, today

    parser = argparse.ArgumentParser(
        prog="telegrad-server init", description="Makes certificates, tokens and keys in DIR. What is there is kept."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="made if it is not there, with mode 0700")
    parser.add_argument(
        "--name",
        dest="names",
        metavar="HOST",
        action="append",
        default=environ.get(VARIABLES + "NAMES", "").split(),
        help=f"an address or a host's name at which clients reach the server; may be repeated (or {VARIABLES}NAMES)",
    )
    options = parser.parse_args(arguments)
    report = make_secrets(options.folder, options.names, now=today())
    for verdict in ("made", "renewed", "kept"):
        files = [name for name, what in report.files.items() if what == verdict]
        if files:
            print(f"{verdict:8}{' '.join(files)}")
    for note in report.notes:
        print(f"note    {note}")
    folder = options.folder.resolve()
    print(f"server  telegrad-server --secrets-dir {folder}")
    print(f"client  TELEGRAD_TOKEN_FILE={folder / 'client.token'} telegrad hello grpcs://HOST:{Config.port}", end="")
    print(f" --ca-cert {folder / 'ca.pem'}")
    return 0


def journal(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check or copy the journal of a server that does not run. DataCorrupt if it is damaged."""
    from telegrad_server.journal import Journal

    folder = environ.get(VARIABLES + "DATA_DIR")
    parser = argparse.ArgumentParser(
        prog="telegrad-server journal",
        description="Checks every row of a server's journal, or writes a checked copy. A server that runs has its own"
        " open: stop it, or let it write copies with --journal-backup.",
    )
    parser.add_argument("command", choices=("check", "backup"))
    parser.add_argument("copy", metavar="FILE", type=Path, nargs="?", help="where a backup is written")
    parser.add_argument("--data-dir", metavar="DIR", default=folder, required=folder is None)
    options = parser.parse_args(arguments)
    if (options.copy is None) == (options.command == "backup"):
        parser.error("backup wants a FILE, and check none")
    path = Path(options.data_dir) / "journal.db"
    if not path.exists():
        raise NotFound(f"there is no journal {path}; --data-dir is the server's own")
    found = Journal(path)
    try:
        entries = found.replay()
        if options.copy is not None:
            found.backup(options.copy)
    finally:
        found.close()
    jobs = {entry.event.job for entry in entries}
    print(f"whole   {path}: {len(entries)} events of {len(jobs)} jobs")
    if options.copy is not None:
        print(f"copied  {options.copy}")
    return 0


def health(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Ask a server whether it serves: 0 if so. The settings that the server reads from the environment are read too."""
    from telegrad_server.probe import ask

    parser = argparse.ArgumentParser(
        prog="telegrad-server health", description="Asks a server's health service; exit status 0 means it serves."
    )
    folder = environ.get(VARIABLES + "SECRETS_DIR")
    port = environ.get(VARIABLES + "PORT") or Config.port
    parser.add_argument("--address", metavar="HOST:PORT", default=f"localhost:{port}", help="(default %(default)s)")
    parser.add_argument(
        "--ca-cert",
        metavar="FILE",
        default=str(Path(folder) / "ca.pem") if folder else None,
        help="PEM file of the server's authority; without it the server is asked without TLS (default %(default)s)",
    )
    parser.add_argument("--server-name", metavar="HOST", help="the name in the certificate, if not that of the address")
    parser.add_argument("--service", default="", help='what to ask for; "live" is whether the process lives')
    parser.add_argument("--timeout-seconds", type=float, default=3.0)
    options = parser.parse_args(arguments)
    answer = ask(
        options.address,
        ca_cert=options.ca_cert,
        server_name=options.server_name,
        service=options.service,
        timeout_seconds=options.timeout_seconds,
    )
    print(answer)
    return 0 if answer == "SERVING" else 1
