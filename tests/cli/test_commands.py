"""The other commands, through click and as processes of their own, against real servers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import telegrad as tg
from telegrad import errors
from telegrad.cli import program
from telegrad.cli.report import EXITS, exit_of
from telegrad.cli.top import look
from telegrad.transport import Greeting, WorkerInfo
from telegrad_server.access import Gate

from tests.cli.conftest import Server, Telegrad, process, shape
from tests.server.test_service import start, stop

pytestmark = pytest.mark.slow  # servers in processes of their own

ROOT = Path(__file__).resolve().parents[2]
DEVICE = {"name", "machine", "backend", "state", "sessions", "held_bytes", "busy_seconds"}
STATUS = {
    "address", "profile", "client_version", "server_version", "incarnation", "backend", "fingerprint", "held_bytes",
    "workers", "sessions", "waiting_sessions", "warnings",
}  # fmt: skip


# ---- the program


def test_every_command_is_a_module_with_help(telegrad: Telegrad) -> None:
    listed = telegrad("--help").output

    for name in program.COMMANDS:
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)
        if name != "serve":
            assert telegrad(name, "--help").exit_code == 0


@pytest.mark.parametrize("name", ["nothing", "report", "__init__", "program"])
def test_a_word_that_is_no_command_is_a_wrong_command_line(name: str, telegrad: Telegrad) -> None:
    said = telegrad(name)

    assert said.exit_code == 2
    assert "No such command" in said.output


def test_only_the_command_that_is_called_is_loaded() -> None:
    code = "import atexit; atexit.register(lambda: print([m for m in ('grpc', 'rich') if m in sys.modules]))"

    assert process("profiles", code=code).stdout.splitlines()[-1] == "[]"


def test_importing_telegrad_loads_no_command_line() -> None:
    code = "import sys, telegrad; print([m for m in ('click', 'rich', 'telegrad.profiles') if m in sys.modules])"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_error_has_an_exit_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, tg.TelegradError)]

    assert {exit_of(kind("x")) for kind in kinds} == {status for _, status in EXITS}
    assert {status for _, status in EXITS} <= set(range(1, 16)) - {2}


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (("status", "grpc://127.0.0.1:1", "--timeout-seconds", "0.2"), 3, "CONNECTION_FAILED"),
        (("hello", "grpc://127.0.0.1:1", "--timeout-seconds", "0.2"), 3, "CONNECTION_FAILED"),
        (("devices", "--profile", "box"), 6, "NOT_FOUND"),
        (("logout", "box"), 6, "NOT_FOUND"),
    ],
)
def test_an_error_is_a_sentence_a_status_and_in_json_an_object(
    command: tuple[str, ...], status: int, reason: str, telegrad: Telegrad
) -> None:
    said = telegrad(*command)
    in_json = telegrad(*command, "--json")

    assert said.exit_code == in_json.exit_code == status
    assert said.stdout == ""
    assert said.stderr.startswith("telegrad: ")
    error = shape(in_json)["error"]
    assert (error["reason"], error["exit"]) == (reason, status)
    assert error["message"] in said.stderr


def test_without_a_server_the_way_out_is_said(telegrad: Telegrad) -> None:
    said = telegrad("status")

    assert said.exit_code == 2
    assert "telegrad login ADDRESS" in said.output


def test_two_servers_are_a_wrong_command_line(telegrad: Telegrad, plain: str) -> None:
    assert telegrad("status", plain, "--profile", "box").exit_code == 2


def test_every_command_and_exit_status_is_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text()

    assert [name for name in program.COMMANDS if not re.search(rf"^\| `{name}\b", text, re.MULTILINE)] == []
    assert [status for _, status in EXITS if f"\n| {status} | " not in text] == []


# ---- asking


def test_status_has_its_shape_and_opens_nothing(telegrad: Telegrad, plain: str) -> None:
    with tg.connect(plain, new=True):
        held = tg.ones((1000,))
        held.numpy()
        found = shape(telegrad("status", plain, "--json"))

    assert set(found) == STATUS
    assert (found["address"], found["backend"], found["workers"]) == (plain, "numpy", 0)
    assert found["held_bytes"] >= 4000
    assert "backend  numpy" in telegrad("status", plain).output


def test_devices_of_a_single_server_are_one(telegrad: Telegrad, plain: str) -> None:
    (device,) = shape(telegrad("devices", plain, "--json"))["devices"]

    assert set(device) == DEVICE
    assert (device["name"], device["backend"], device["sessions"]) == ("server", "numpy", None)
    assert re.search(r"^server +numpy +live", telegrad("devices", plain).output, re.MULTILINE)


def test_hello_says_what_it_always_said_and_has_json(telegrad: Telegrad, plain: str) -> None:
    said = telegrad("hello", plain)
    found = shape(telegrad("hello", plain, "--json"))

    assert said.output.startswith(f"telegrad {tg.__version__} reaches a server at {plain}\nbackend      numpy\n")
    assert (found["backend"], found["home"], found["workers"]) == ("numpy", None, [])


def test_top_looks_as_often_as_it_is_told(telegrad: Telegrad, plain: str) -> None:
    looks = telegrad("top", plain, "--json", "--count", "3", "--interval", "0.1").stdout.splitlines()

    assert [json.loads(line)["devices"] for line in looks] == [[], [], []]
    assert telegrad("top", plain, "--count", "1").output.splitlines()[1].split() == [
        "name", "state", "backend", "sessions", "held", "busy",
    ]  # fmt: skip


def test_an_interrupt_ends_top_with_its_status(plain: str) -> None:
    command = [sys.executable, "-m", "telegrad.cli", "top", plain, "--json", "--interval", "0.1"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()

    running.send_signal(signal.SIGINT)

    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in said


def greeting(*busy: float) -> Greeting:
    workers = tuple(WorkerInfo(f"w{i}", "m", "numpy", "live", 1, 8, seconds) for i, seconds in enumerate(busy))
    return Greeting("1", "x", frozenset(), "numpy", "", (), workers=workers)


def test_top_counts_how_busy_a_device_was_since_the_last_look() -> None:
    before = {w.name: w for w in greeting(10.0, 10.0, 10.0).workers}

    found = look("a", greeting(11.0, 13.0, 1.0, 5.0), before, seconds=2.0, answered_in_seconds=0.001)

    devices = found["devices"]
    assert isinstance(devices, list)
    # computing; for longer than the looks were apart; started anew; new
    assert [d["busy"] for d in devices] == [0.5, 1.0, None, None]


# ---- logging in


def test_a_login_is_checked_kept_and_used_by_every_command(
    telegrad: Telegrad, secure: Server, configuration: Path
) -> None:
    made = telegrad(
        "login", secure.address, "--profile", "box", "--ca-cert", secure.ca_cert, "--token-file", secure.token_file,
        "--json",
    )  # fmt: skip

    assert shape(made) == {
        "profile": "box", "address": secure.address, "is_default": True, "path": str(configuration)
    }  # fmt: skip
    assert configuration.stat().st_mode & 0o777 == 0o600
    for command in ("status", "devices", "hello", "doctor", "token check"):
        assert telegrad(*command.split()).exit_code == 0
    found = shape(telegrad("status", "box", "--json"))
    assert (found["profile"], found["address"]) == ("box", secure.address)


def test_a_token_from_standard_input_is_kept_in_the_profile_and_never_shown(
    telegrad: Telegrad, secure: Server, configuration: Path
) -> None:
    token = Path(secure.token_file).read_text().strip()

    made = telegrad("login", secure.address, "--ca-cert", secure.ca_cert, "--with-token", stdin=token + "\n")

    assert made.exit_code == 0, made.output
    assert tomllib.loads(configuration.read_text())["profiles"]["default"]["token"] == token
    assert telegrad("status").exit_code == 0
    listed = telegrad("profiles").output + telegrad("profiles", "--json").output + made.output
    assert token not in listed
    assert "* default" in listed


def test_a_login_that_fails_keeps_nothing(telegrad: Telegrad, secure: Server, configuration: Path) -> None:
    wrong = telegrad("login", secure.address, "--ca-cert", secure.ca_cert, "--with-token", stdin="wrong" * 5)
    none = telegrad("login", secure.address, "--ca-cert", secure.ca_cert)

    assert (wrong.exit_code, none.exit_code) == (4, 4)
    assert "wants a token" in none.output
    assert not configuration.exists()


def test_a_login_without_a_check_asks_nobody(telegrad: Telegrad) -> None:
    assert telegrad("login", "grpc://127.0.0.1:1", "--no-check").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("grpc://a:1", "--profile", "a b"),
        ("grpc://a:1", "--with-token"),
        ("grpc://a:1", "--with-token", "--token-file", __file__),
        ("grpc://a:1", "--ca-cert", __file__),
        ("grpc://a:1", "--token-file", "/nowhere"),
    ],
)
def test_a_login_that_makes_no_sense_is_a_wrong_command_line(words: tuple[str, ...], telegrad: Telegrad) -> None:
    assert telegrad("login", *words).exit_code == 2


def test_the_profile_is_the_one_named_else_the_variables_else_the_default(
    telegrad: Telegrad, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    telegrad("login", "grpc://127.0.0.1:1", "--profile", "first", "--no-check")
    telegrad("login", "grpc://127.0.0.1:1", "--profile", "second", "--no-check")
    telegrad("login", plain, "--profile", "real", "--make-default")

    assert shape(telegrad("status", "--json"))["profile"] == "real"
    monkeypatch.setenv("TELEGRAD_PROFILE", "first")
    assert telegrad("status", "--timeout-seconds", "0.2").exit_code == 3
    assert shape(telegrad("status", "--profile", "real", "--json"))["profile"] == "real"
    telegrad("logout", "real")
    monkeypatch.delenv("TELEGRAD_PROFILE")
    assert telegrad("status").exit_code == 2


# ---- tokens


def test_a_new_tokens_line_is_taken_by_a_server_and_holds_no_secret(telegrad: Telegrad, tmp_path: Path) -> None:
    made = shape(telegrad("token", "new", "alice", "--weight", "2", "--json"))
    tokens = tmp_path / "tokens"
    tokens.write_text(made["line"] + "\n")
    tokens.chmod(0o600)

    gate = Gate.from_file(str(tokens))

    assert gate.caller_of(f"Bearer {made['token']}").tenant == "alice"
    assert gate.caller_of(f"Bearer {made['token']}").weight == 2.0
    assert made["token"] not in tokens.read_text()
    with pytest.raises(errors.AccessError):
        gate.caller_of(f"Bearer {made['hash']}")


def test_a_hash_is_that_of_the_token(telegrad: Telegrad) -> None:
    made = shape(telegrad("token", "new", "alice", "--json"))

    assert telegrad("token", "hash", stdin=made["token"] + "\n").output.strip() == made["hash"]
    assert telegrad("token", "hash", stdin="short\n").exit_code == 4


@pytest.mark.parametrize("entry", ["sha256: alice", "sha256:12 alice", f"sha256:{'G' * 64} alice"])
def test_a_hash_that_is_none_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(entry + "\n")
    (tmp_path / "tokens").chmod(0o600)

    with pytest.raises(errors.AccessError, match="sha256: and 64 hexadecimal digits"):
        Gate.from_file(str(tmp_path / "tokens"))


def test_a_server_with_hashes_takes_the_token_and_check_says_so(
    telegrad: Telegrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shape(telegrad("token", "new", "alice", "--json"))
    (tmp_path / "tokens").write_text(made["line"] + "\n")
    (tmp_path / "tokens").chmod(0o600)
    running, where = start("--token-file", str(tmp_path / "tokens"))
    address = f"grpc://{where}"

    missing = telegrad("token", "check", address, "--json")
    monkeypatch.setenv("TELEGRAD_TOKEN", "telegrad_of_nobody")
    wrong = telegrad("token", "check", address, "--json")
    monkeypatch.setenv("TELEGRAD_TOKEN", made["token"])
    right = telegrad("token", "check", address, "--json")

    stop(running)
    assert (missing.exit_code, wrong.exit_code, right.exit_code) == (4, 4, 0)
    assert [shape(r)["error"]["reason"] for r in (missing, wrong)] == ["TOKEN_MISSING", "TOKEN_INVALID"]
    assert shape(right) == {"address": address, "is_wanted": True, "is_given": True}


def test_a_server_that_wants_no_token_is_said_to_be_one(telegrad: Telegrad, plain: str) -> None:
    assert "wants no token" in telegrad("token", "check", plain).output


# ---- serving and completing


def test_serve_becomes_a_server(telegrad: Telegrad) -> None:
    command = [sys.executable, "-m", "telegrad.cli", "serve", "--port", "0", "--backend", "numpy"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    found = re.search(r"listening on (\S+)", running.stdout.readline())
    assert found

    asked = telegrad("status", f"grpc://{found[1]}")

    assert stop(running) == 0
    assert asked.exit_code == 0


def test_serve_passes_options_on_even_help() -> None:
    done = process("serve", "--help")

    assert done.returncode == 0
    assert "usage: telegrad-server" in done.stdout


def test_serve_without_the_extra_says_what_to_install() -> None:
    done = process("serve", code="sys.modules['grpc_health'] = None")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "telegrad: a server needs grpc_health, not installed here; run pip install 'telegrad[server]'\n"
    )


def test_a_shell_completes_commands_and_profiles(telegrad: Telegrad, monkeypatch: pytest.MonkeyPatch) -> None:
    telegrad("login", "grpc://127.0.0.1:1", "--profile", "gpu-box", "--no-check")
    monkeypatch.setenv("_TELEGRAD_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "telegrad st")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert process().stdout.split() == ["plain,status"]
    monkeypatch.setenv("COMP_WORDS", "telegrad status gp")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert process().stdout.split() == ["plain,gpu-box"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str, telegrad: Telegrad) -> None:
    script = telegrad("completion", shell)

    assert script.exit_code == 0
    assert f"_TELEGRAD_COMPLETE={shell}_complete" in script.output
