"""The gRPC front on loopback: who may come in, what is no message, and how the program starts and stops."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import telegrad as tg
from grpc._cython import cygrpc
from telegrad.errors import AccessError
from telegrad.transport import channel
from telegrad.wire.v1 import datasets_pb2, jobs_pb2, sessions_pb2
from telegrad.wire.v1 import sessions_pb2 as pb
from telegrad_server import service
from telegrad_server.access import Gate, check_exposure
from telegrad_server.config import Config, read_config
from telegrad_server.main import main
from telegrad_server.service import relay
from telegrad_server.service.edge import READ_METHODS

from tests.server.test_front import Front

TOKEN = "telegrad_token_of_alice"


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "telegrad_server.main", "--port", "0", "--backend", "numpy", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"listening on (\S+)", process.stdout.readline())
    assert found
    return process, found[1]


def stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=30)
    return process.returncode


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a token."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"# token tenant\n{TOKEN} alice\ntelegrad_token_of_bob__ bob\n")
    tokens.chmod(0o600)
    process, address = start("--token-file", str(tokens))
    yield address
    assert stop(process) == 0


def call(address: str, method: str, data: bytes, *, token: str | None = TOKEN) -> Any:
    """A raw unary call; the bytes of the answer, or the error."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        raw = channel.unary_unary(f"/telegrad.wire.v1.Sessions/{method}", lambda b: b, lambda b: b)
        try:
            return raw(data, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error


def record(error: Any) -> pb.ErrorRecord:
    return pb.ErrorRecord.FromString(dict(error.trailing_metadata())["telegrad-error-bin"])


def test_a_call_without_the_token_is_refused_before_its_body_is_read(guarded: str) -> None:
    for token, reason in ((None, "TOKEN_MISSING"), ("wrong" * 5, "TOKEN_INVALID")):
        error = call(guarded, "OpenSession", b"\xff\xff no message", token=token)

        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert record(error).reason == reason


def test_the_client_sends_its_token(guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = f"grpc://{guarded}"
    with tg.connect(address, token=TOKEN, new=True):
        assert (tg.asarray([1.0]) + 1).item() == 2
    with pytest.raises(AccessError, match="wants a token"):
        tg.connect(address, new=True)
    file = tmp_path / "token"
    file.write_text(TOKEN)
    monkeypatch.setenv("TELEGRAD_TOKEN_FILE", str(file))
    file.chmod(0o644)
    with pytest.raises(AccessError, match="chmod 600"):
        tg.connect(address, new=True)
    file.chmod(0o600)
    tg.connect(address, new=True).close()


def test_a_token_is_not_sent_in_clear_text_to_another_machine() -> None:
    with pytest.raises(AccessError, match="clear text"):
        tg.connect("grpc://192.0.2.1:50051", token=TOKEN, timeout_seconds=0.1)


def test_another_tenants_session_is_not_there(guarded: str) -> None:
    opened = pb.OpenSessionResponse.FromString(call(guarded, "OpenSession", b""))
    request = pb.KeepAliveRequest(session_id=opened.session_id, session_secret=opened.session_secret)
    never = pb.KeepAliveRequest(session_id="0" * 32, session_secret=opened.session_secret)

    assert isinstance(call(guarded, "KeepAlive", request.SerializeToString()), bytes)
    stranger = call(guarded, "KeepAlive", request.SerializeToString(), token="telegrad_token_of_bob__")
    nobody = call(guarded, "KeepAlive", never.SerializeToString())
    assert stranger.code() is nobody.code() is grpc.StatusCode.NOT_FOUND
    assert (stranger.details(), record(stranger)) == (nobody.details(), record(nobody))


@pytest.mark.parametrize("method", ["Hello", "OpenSession", "KeepAlive", "CloseSession"])
def test_bytes_that_are_no_message_are_the_callers_fault(guarded: str, method: str) -> None:
    error = call(guarded, method, b"\xff\xff\xff")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert record(error).reason == "MALFORMED_MESSAGE"


def test_a_stream_must_begin_with_attach(guarded: str) -> None:
    with grpc.insecure_channel(guarded) as channel:
        attach = channel.stream_stream("/telegrad.wire.v1.Sessions/AttachSession", lambda b: b, lambda b: b)
        for first in (pb.AttachSessionRequest(sequence=1).SerializeToString(), b"\xff"):
            with pytest.raises(grpc.RpcError) as caught:
                list(attach(iter([first]), metadata=[("authorization", f"Bearer {TOKEN}")], timeout=10))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("options", [service.OPTIONS, channel.OPTIONS, relay.OPTIONS])
def test_every_option_is_one_that_grpc_knows(options: list[tuple[str, object]]) -> None:
    """It says nothing of a name that it does not know."""
    program = Path(cygrpc.__file__).read_bytes()

    assert [name for name, _ in options if name.encode() not in program] == []


def test_the_option_block_is_as_reliability_asks() -> None:
    options = dict(service.OPTIONS)

    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.max_concurrent_streams"] == 64
    assert options["grpc.max_metadata_size"] == 8 << 10
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < dict(channel.OPTIONS)["grpc.keepalive_time_ms"]
    assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"] == 10_000


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (["--host", "0.0.0.0"], ["--tls-cert", "--token-file"]),
        (["--host", "::"], ["--tls-cert", "--token-file"]),
        (["--host", "0.0.0.0", "--token-file", "x"], ["--tls-cert"]),
        (["--host", "0.0.0.0", "--tls-cert", "x", "--tls-key", "y"], ["--token-file"]),
        (["--tls-cert", "x"], ["--tls-key"]),
    ],
)
def test_an_exposed_server_without_tls_and_token_does_not_start(
    options: list[str], missing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--port", "0"]) == 2

    said = capsys.readouterr().err
    assert all(option in said for option in missing)


def test_loopback_needs_neither() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_exposure(Config(host=host))
    assert read_config([], {}).host == "127.0.0.1"


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN} alice\n")
    file.chmod(0o640)
    with pytest.raises(AccessError, match="chmod 600"):
        Gate.from_file(str(file))
    file.chmod(0o600)

    gate = Gate.from_file(str(file))

    assert gate.caller_of(f"Bearer {TOKEN}").tenant == "alice"
    assert TOKEN not in repr(gate)


@pytest.mark.parametrize("text", ["", "short alice", "telegrad_token_without_tenant"])
def test_a_token_file_must_hold_tokens(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(0o600)

    with pytest.raises(AccessError):
        Gate.from_file(str(file))


@pytest.mark.slow
def test_a_second_server_on_a_port_says_so(guarded: str) -> None:
    port = guarded.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "telegrad_server.main", "--port", port, "--backend", "numpy"],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 1
    assert "cannot listen" in done.stderr


def test_a_backend_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    if _has_cupy():
        assert main(["--backend", "numpy", "--host", "0.0.0.0"]) == 2
    else:
        assert main(["--backend", "cupy", "--port", "0"]) == 2
        assert "cupy" in capsys.readouterr().err


def _has_cupy() -> bool:
    from importlib.util import find_spec

    return find_spec("cupy") is not None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_with_status_0(number: signal.Signals) -> None:
    process, _ = start()
    process.send_signal(number)
    process.communicate(timeout=30)

    assert process.returncode == 0


def test_headers_without_a_body_starve_nobody(guarded: str) -> None:
    """Streams that send nothing: a threaded server would be stopped dead by a few of them."""
    with grpc.insecure_channel(guarded) as channel:
        attach = channel.stream_stream("/telegrad.wire.v1.Sessions/AttachSession", lambda b: b, lambda b: b)
        box: Any = __import__("queue").SimpleQueue()
        idle = [attach(iter(box.get, None), metadata=[("authorization", f"Bearer {TOKEN}")]) for _ in range(20)]
        for _ in range(5):
            assert isinstance(call(guarded, "Hello", b""), bytes)
        for stream in idle:
            stream.cancel()
        for _ in idle:
            box.put(None)


def test_garbage_on_the_socket_harms_nobody(guarded: str) -> None:
    host, port = guarded.rsplit(":", 1)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(garbage)

    assert isinstance(call(guarded, "Hello", b""), bytes)


def test_a_token_that_may_only_read_is_told_apart_and_keeps_its_weight(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.touch(mode=0o600)
    file.write_text(f"{TOKEN}1 alice\n{TOKEN}2 alice read\n{TOKEN}3 alice 2.5 read\n{TOKEN}4 read\n")

    callers = [Gate.from_file(str(file)).caller_of(f"Bearer {TOKEN}{n}") for n in (1, 2, 3, 4)]

    assert [caller.may_only_read for caller in callers] == [False, True, True, False]
    assert [caller.weight for caller in callers] == [1.0, 1.0, 2.5, 1.0]
    assert [caller.tenant for caller in callers] == ["alice", "alice", "alice", "read"]
    for line in (f"{TOKEN} alice read 2", f"{TOKEN} alice write", f"{TOKEN} alice read read", f"{TOKEN} alice 1 2"):
        file.write_text(line)
        with pytest.raises(AccessError, match="entry 1"):
            Gate.from_file(str(file))


def test_over_grpc_a_token_that_may_only_read_opens_no_session_and_reads_datasets(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.touch(mode=0o600)
    file.write_text(f"{TOKEN}1 alice\n{TOKEN}2 alice read\n")
    front = Front(Gate.from_file(str(file)))
    try:
        with pytest.raises(AccessError, match="may only read") as caught:
            tg.connect(f"grpc://127.0.0.1:{front.port}", token=f"{TOKEN}2")
        assert caught.value.reason == "ACCESS_DENIED"
        tg.connect(f"grpc://127.0.0.1:{front.port}", token=f"{TOKEN}1").close()
    finally:
        front.close()


def test_the_page_beyond_loopback_needs_tls_and_a_token() -> None:
    with pytest.raises(AccessError, match=r"0\.0\.0\.0 can be reached"):
        check_exposure(Config(web_host="0.0.0.0"))
    check_exposure(Config(web_host="127.0.0.1"))
    check_exposure(Config(web_host="0.0.0.0", tls_cert="c", tls_key="k", token_file="t"))


def test_every_call_that_a_reading_token_may_make_exists() -> None:
    services = [module.DESCRIPTOR.services_by_name for module in (sessions_pb2, jobs_pb2, datasets_pb2)]
    known = {f"/{s.full_name}/{m.name}" for found in services for s in found.values() for m in s.methods}

    assert {name for name in READ_METHODS if not name.startswith("/grpc.")} <= known
    assert not [name for name in READ_METHODS if any(w in name for w in ("Put", "Delete", "Submit", "Cancel", "Open"))]
