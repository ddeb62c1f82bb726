"""The doctor: each way in which things are wrong, with a real server that is wrong so, has its line and its advice."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import telegrad as tg
from telegrad.cli.checks import compare_clocks
from telegrad_server.secrets_folder import make_secrets, today

from tests.cli.conftest import Server, Telegrad, process, shape
from tests.server.test_service import start, stop

pytestmark = pytest.mark.slow  # servers in processes of their own

ORDER = ["client", "address", "connect", "tls", "server", "token", "clock", "compute"]


def failure(examined: Any) -> dict[str, str]:
    """The one check that failed; what is before it is well, and what is after it is skipped."""
    verdicts = [check["verdict"] for check in examined["checks"]]
    at = verdicts.index("fail")
    assert set(verdicts[:at]) == {"ok"}
    assert set(verdicts[at + 1 :]) <= {"skip"}
    return examined["checks"][at]


def test_a_server_that_is_well_has_no_failure(telegrad: Telegrad, plain: str) -> None:
    examined = telegrad("doctor", plain, "--json")

    assert examined.exit_code == 0
    checks = shape(examined)["checks"]
    assert [check["check"] for check in checks][: len(ORDER)] == ORDER
    assert {check["verdict"] for check in checks if check["check"] != "gpu"} == {"ok"}
    (gpu,) = [check for check in checks if check["check"] == "gpu"]
    assert gpu["verdict"] == "warn"
    assert gpu["found"].startswith("no GPU")
    assert "telegrad[cuda13]" in gpu["advice"]


def test_so_has_one_with_tls_and_a_token(telegrad: Telegrad, secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAD_TOKEN_FILE", secure.token_file)

    examined = telegrad("doctor", secure.address, "--ca-cert", secure.ca_cert)

    assert examined.exit_code == 0, examined.output
    assert "the certificate is good, until" in examined.output
    assert "the server takes it" in examined.output


def test_without_a_server_this_machine_is_examined(telegrad: Telegrad) -> None:
    examined = shape(telegrad("doctor", "--json"))

    assert [check["check"] for check in examined["checks"]][:2] == ["client", "compute"]
    assert (examined["address"], examined["exit"]) == (None, 0)


def test_every_line_that_is_not_well_says_what_to_do(telegrad: Telegrad, secure: Server) -> None:
    examined = telegrad("doctor", secure.address)

    assert examined.exit_code == 3
    assert "fail tls" in examined.output
    assert "-> get the server's ca.pem, and give it with --ca-cert" in examined.output


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "found", "advice", "status"),
    [
        ("grpc:/nowhere", "is no address", "correct the", 3),
        ("grpc://nobody.invalid:50051", "no host has the name nobody.invalid", "check the name", 3),
    ],
)
def test_addresses_that_lead_nowhere(address: str, found: str, advice: str, status: int, telegrad: Telegrad) -> None:
    examined = telegrad("doctor", address, "--json")

    failed = failure(shape(examined))
    assert found in failed["found"]
    assert advice in failed["advice"]
    assert examined.exit_code == shape(examined)["exit"] == status


def test_no_server(telegrad: Telegrad) -> None:
    examined = telegrad("doctor", f"grpc://127.0.0.1:{free_port()}", "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("connect", 3)
    assert "nothing listens there" in failed["found"]
    assert "start the server" in failed["advice"]


def test_a_port_on_which_nobody_speaks(telegrad: Telegrad) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        clear = telegrad("doctor", f"grpc://127.0.0.1:{port}", "--json", "--timeout-seconds", "0.2")
        tls = telegrad("doctor", f"grpcs://127.0.0.1:{port}", "--json", "--timeout-seconds", "0.2")

    assert "does not speak gRPC" in failure(shape(clear))["found"]
    assert "does not finish the TLS handshake" in failure(shape(tls))["found"]


def test_the_authority_of_another_server(telegrad: Telegrad, secure: Server, expired: Server) -> None:
    examined = telegrad("doctor", secure.address, "--ca-cert", expired.ca_cert, "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("tls", 3)
    assert failed["found"] == f"the server's certificate is of another authority than the one in {expired.ca_cert}"
    assert "--ca-cert" in failed["advice"]


def test_no_authority_for_one_that_is_not_public(telegrad: Telegrad, secure: Server) -> None:
    assert "of no public authority" in failure(shape(telegrad("doctor", secure.address, "--json")))["found"]


def test_an_authority_that_cannot_be_read(telegrad: Telegrad, secure: Server, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for path in (tmp_path / "missing.pem", tmp_path / "text.pem"):
        failed = failure(shape(telegrad("doctor", secure.address, "--ca-cert", str(path), "--json")))

        assert f"{path} is no readable certificate" in failed["found"]


def test_a_certificate_that_has_expired(telegrad: Telegrad, expired: Server) -> None:
    examined = telegrad("doctor", expired.address, "--ca-cert", expired.ca_cert, "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("tls", 3)
    assert "has expired" in failed["found"]
    assert "telegrad-server init" in failed["advice"]


@pytest.fixture
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server at an address, with a certificate from in so many days on."""
    host, days = request.param
    make_secrets(tmp_path / "secrets", [], now=today() + timedelta(days=days))
    running, address = start("--secrets-dir", str(tmp_path / "secrets"), "--host", host)
    yield Server(f"grpcs://{address}", tmp_path / "secrets")
    stop(running)


@pytest.mark.parametrize("made", [("127.0.0.2", 0)], indirect=True)
def test_a_certificate_for_another_host(telegrad: Telegrad, made: Server) -> None:
    failed = failure(shape(telegrad("doctor", made.address, "--ca-cert", made.ca_cert, "--json")))

    assert failed["found"] == "the server's certificate is not for 127.0.0.2"
    assert "--name 127.0.0.2" in failed["advice"]


@pytest.mark.parametrize("made", [("127.0.0.1", 3)], indirect=True)
def test_a_certificate_that_is_not_valid_yet(telegrad: Telegrad, made: Server) -> None:
    failed = failure(shape(telegrad("doctor", made.address, "--ca-cert", made.ca_cert, "--json")))

    assert "not valid yet" in failed["found"]
    assert "clocks" in failed["advice"]


@pytest.mark.parametrize("made", [("127.0.0.1", -720)], indirect=True)
def test_a_certificate_that_ends_soon_is_a_warning(telegrad: Telegrad, made: Server) -> None:
    examined = shape(telegrad("doctor", made.address, "--ca-cert", made.ca_cert, "--json"))

    (warning,) = [check for check in examined["checks"] if check["check"] == "tls"]
    assert warning["verdict"] == "warn"
    assert "renews it" in warning["advice"]


def test_plaintext_to_tls(telegrad: Telegrad, secure: Server) -> None:
    examined = telegrad("doctor", secure.address.replace("grpcs", "grpc"), "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("tls", 3)
    assert "speaks TLS" in failed["found"]
    assert f"write {secure.address}" in failed["advice"]


def test_tls_to_plaintext(telegrad: Telegrad, plain: str) -> None:
    failed = failure(shape(telegrad("doctor", plain.replace("grpc", "grpcs"), "--json")))

    assert "does not speak TLS" in failed["found"]
    assert f"write {plain}" in failed["advice"]


def test_a_wrong_token(telegrad: Telegrad, secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAD_TOKEN", "telegrad_of_nobody_here")

    examined = telegrad("doctor", secure.address, "--ca-cert", secure.ca_cert, "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("token", 4)
    assert "does not know this token" in failed["found"]
    assert "telegrad login" in failed["advice"]


def test_no_token(telegrad: Telegrad, secure: Server) -> None:
    examined = telegrad("doctor", secure.address, "--ca-cert", secure.ca_cert, "--json")

    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("token", 4)
    assert "there is none" in failed["found"]


def test_a_token_file_that_others_may_read(
    telegrad: Telegrad, plain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("telegrad_token_of_alice")
    (tmp_path / "token").chmod(0o644)
    monkeypatch.setenv("TELEGRAD_TOKEN_FILE", str(tmp_path / "token"))

    examined = telegrad("doctor", plain, "--json")

    assert "chmod 600" in failure(shape(examined))["found"]
    assert examined.exit_code == 4


def test_a_token_in_clear_text_over_a_network(telegrad: Telegrad, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAD_TOKEN", "telegrad_token_of_alice")

    examined = telegrad("doctor", "grpc://192.0.2.1:50051", "--json")

    assert "clear text" in failure(shape(examined))["found"]
    assert examined.exit_code == 4


def started(program: str) -> tuple[subprocess.Popen[str], str]:
    """A server that is not quite like this version's."""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    found = re.search(r"listening on (\S+)", running.stdout.readline())
    assert found
    return running, f"grpc://{found[1]}"


OTHER_PROTOCOL = """
from telegrad_server.service import sessions
sessions.PROTOCOLS = ("v0",)
from telegrad_server.main import main
main(["--port", "0", "--backend", "numpy"])
"""


def test_a_server_of_another_protocol(telegrad: Telegrad) -> None:
    running, address = started(OTHER_PROTOCOL)

    examined = telegrad("doctor", address, "--json")

    stop(running)
    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("server", 5)
    assert "speaks v1" in failed["found"]
    assert "--upgrade" in failed["advice"]


FEWER_OPS = """
import telegrad_server.worker as worker
hello = worker.Worker.hello
from dataclasses import replace
worker.Worker.hello = lambda self: replace(hello(self), ops=tuple(op for op in hello(self).ops if op != "argsort"))
from telegrad_server.main import main
main(["--port", "0", "--backend", "numpy"])
"""


def test_a_server_that_knows_fewer_ops_is_a_warning(telegrad: Telegrad) -> None:
    running, address = started(FEWER_OPS)

    examined = telegrad("doctor", address, "--json")

    stop(running)
    (found,) = [check for check in shape(examined)["checks"] if check["check"] == "server"]
    assert (found["verdict"], examined.exit_code) == ("warn", 0)
    assert found["found"].endswith("does not know the ops argsort")
    assert "upgrade the server" in found["advice"]


def test_a_server_that_gives_no_session(telegrad: Telegrad) -> None:
    running, address = start("--max-sessions", "1")
    with tg.connect(f"grpc://{address}", new=True):
        examined = telegrad("doctor", f"grpc://{address}", "--json")

    stop(running)
    failed = failure(shape(examined))
    assert (failed["check"], examined.exit_code) == ("compute", 7)
    assert "telegrad devices" in failed["advice"]


@pytest.mark.parametrize(
    ("ahead", "verdict", "said"), [(0.2, "ok", ""), (90, "warn", "ahead"), (-90, "warn", "behind")]
)
def test_clocks_that_disagree_are_a_warning(ahead: float, verdict: str, said: str) -> None:
    finding = compare_clocks(ahead)

    assert finding.verdict == verdict
    assert said in finding.found
    assert bool(finding.advice) == (verdict == "warn")


PAST = """
import time, types
from telegrad.cli import checks
checks.time = types.SimpleNamespace(**{**vars(time), "time": lambda: time.time() - 100})
"""


def test_the_server_tells_its_clock(plain: str) -> None:
    done = process("doctor", plain, code=PAST)  # a client 100 s in the past

    assert done.returncode == 0, done.stderr
    assert "warn clock    the server's is 100 s ahead" in done.stdout
