"""What `telegrad-server init` makes, keeps and renews, and that a server and a client work with it."""

from __future__ import annotations

import ssl
import stat
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import telegrad as tg
from cryptography import x509
from telegrad.errors import AccessError, ConnectionFailed
from telegrad_server import commands
from telegrad_server.access import Gate
from telegrad_server.config import read_config
from telegrad_server.secrets_folder import make_secrets, today

from tests.cluster.conftest import gateway
from tests.server.test_service import start, stop

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FILES = {
    "ca.pem", "ca.key", "gateway.pem", "gateway.key", "worker.pem", "worker.key", "tokens", "client.token",
    "cluster.key", "ray.token",
}  # fmt: skip


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / name).read_bytes())


def names_of(folder: Path, name: str) -> set[str]:
    found = certificate(folder, name).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(n.value) for n in found.value}


def test_init_makes_every_secret_and_others_can_read_only_the_authority(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "secrets"

    report = make_secrets(folder, ["gpu-box"], now=NOW)

    assert set(report.files) == FILES == set(contents(folder))
    assert set(report.files.values()) == {"made"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {**dict.fromkeys(FILES, 0o600), "ca.pem": 0o644}


def test_the_certificates_have_the_names_and_lives_of_the_plan(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", ["gpu-box", "192.0.2.7"], now=NOW)

    gateway = {"localhost", "127.0.0.1", "::1", "gateway", "gpu-box", "192.0.2.7"}
    assert names_of(tmp_path / "s", "gateway.pem") == gateway
    assert names_of(tmp_path / "s", "worker.pem") == {"telegrad-worker"}
    years = {
        name: (certificate(tmp_path / "s", name).not_valid_after_utc - NOW).days // 365
        for name in ("ca.pem", "gateway.pem", "worker.pem")
    }
    assert years == {"ca.pem": 10, "gateway.pem": 2, "worker.pem": 2}


def test_a_second_run_keeps_everything(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", ["gpu-box"], now=NOW)
    before = contents(tmp_path / "s")

    report = make_secrets(tmp_path / "s", [], now=NOW + timedelta(days=600))

    assert contents(tmp_path / "s") == before
    assert set(report.files.values()) == {"kept"}
    assert set(report.files) == FILES
    assert report.notes == []


def test_certificates_are_renewed_in_their_last_thirty_days_with_their_keys_and_names(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", ["gpu-box"], now=NOW)
    before = contents(tmp_path / "s")

    report = make_secrets(tmp_path / "s", [], now=NOW + timedelta(days=701))

    after = contents(tmp_path / "s")
    assert {name for name in after if after[name] != before[name]} == {"gateway.pem", "worker.pem"}
    assert report.files["gateway.pem"] == "renewed"
    assert "gpu-box" in names_of(tmp_path / "s", "gateway.pem")


def test_the_authority_is_renewed_with_its_key_so_that_what_it_signed_stays_good(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", [], now=NOW)
    old = certificate(tmp_path / "s", "ca.pem")

    report = make_secrets(tmp_path / "s", [], now=NOW + timedelta(days=3640))

    certificate(tmp_path / "s", "gateway.pem").verify_directly_issued_by(old)
    certificate(tmp_path / "s", "gateway.pem").verify_directly_issued_by(certificate(tmp_path / "s", "ca.pem"))
    assert any("ca.pem to all clients" in note for note in report.notes)


def test_a_new_name_renews_the_gateways_certificate_alone(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", ["one"], now=NOW)
    before = contents(tmp_path / "s")

    make_secrets(tmp_path / "s", ["two"], now=NOW)

    after = contents(tmp_path / "s")
    assert {name for name in after if after[name] != before[name]} == {"gateway.pem"}
    assert {"one", "two"} <= names_of(tmp_path / "s", "gateway.pem")


def test_what_was_interrupted_is_completed(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", [], now=NOW)
    whole = contents(tmp_path / "s")
    for missing in ("tokens", "gateway.pem", "cluster.key", "ca.pem"):
        (tmp_path / "s" / missing).unlink()

        make_secrets(tmp_path / "s", [], now=NOW)

        assert set(contents(tmp_path / "s")) == FILES
        certificate(tmp_path / "s", "gateway.pem").verify_directly_issued_by(certificate(tmp_path / "s", "ca.pem"))
    assert (tmp_path / "s" / "tokens").read_bytes() == whole["tokens"]  # the client's token goes on working


def test_secrets_that_were_taken_away_stay_away_while_they_are_not_needed(tmp_path: Path) -> None:
    make_secrets(tmp_path / "s", [], now=NOW)
    for name in ("client.token", "ca.key"):
        (tmp_path / "s" / name).unlink()

    make_secrets(tmp_path / "s", [], now=NOW)

    assert set(contents(tmp_path / "s")) == FILES - {"client.token", "ca.key"}
    with pytest.raises(AccessError, match=r"ca\.key"):
        make_secrets(tmp_path / "s", [], now=NOW + timedelta(days=720))


def test_a_certificate_of_another_authority_is_kept(tmp_path: Path) -> None:
    make_secrets(tmp_path / "other", [], now=NOW)
    make_secrets(tmp_path / "s", [], now=NOW)
    foreign = (tmp_path / "other" / "gateway.pem").read_bytes()
    (tmp_path / "s" / "gateway.pem").write_bytes(foreign)

    report = make_secrets(tmp_path / "s", [], now=NOW + timedelta(days=720))

    assert (tmp_path / "s" / "gateway.pem").read_bytes() == foreign
    assert any("another authority" in note for note in report.notes)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720])
def test_a_folder_that_others_can_write_is_refused(
    tmp_path: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    folder.chmod(mode)

    assert commands.main(["init", str(folder)]) == 2

    assert f"run chmod go-w {folder}" in capsys.readouterr().err
    assert contents(folder) == {}


def test_a_name_that_no_certificate_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="neither an address nor"):
        make_secrets(tmp_path / "s", ["gpü"], now=NOW)


def test_two_at_once_make_one_set(tmp_path: Path) -> None:
    threads = [threading.Thread(target=make_secrets, args=(tmp_path / "s", []), kwargs={"now": NOW}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    folder = tmp_path / "s"
    assert set(contents(folder)) == FILES
    token = (folder / "client.token").read_text().strip()
    assert Gate.from_file(str(folder / "tokens")).caller_of(f"Bearer {token}").tenant == "default"
    certificate(folder, "gateway.pem").verify_directly_issued_by(certificate(folder, "ca.pem"))


def test_the_certificates_pass_a_strict_check(tmp_path: Path) -> None:
    commands.main(["init", str(tmp_path / "s")])
    trusting = ssl.create_default_context(cafile=str(tmp_path / "s" / "ca.pem"))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "s" / "worker.pem", tmp_path / "s" / "worker.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="telegrad-worker")
    server = serving.wrap_bio(to_server, to_client, server_side=True)

    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass

    assert client.getpeercert()


def test_settings_given_by_hand_go_before_the_folder() -> None:
    config = read_config(["--secrets-dir", "/s", "--token-file", "t"], {"TELEGRAD_SERVER_TLS_CERT": "c"})

    assert (config.tls_cert, config.tls_key, config.token_file) == ("c", None, "t")
    config = read_config(["--secrets-dir", "/s"], {})
    assert (config.tls_cert, config.tls_key, config.token_file) == ("/s/gateway.pem", "/s/gateway.key", "/s/tokens")


@pytest.mark.parametrize(
    ("role", "files"),
    [
        ("all-in-one", {"tls_cert": "gateway.pem", "tls_key": "gateway.key", "token_file": "tokens"}),
        (
            "gateway",
            {
                "tls_cert": "gateway.pem",
                "tls_key": "gateway.key",
                "token_file": "tokens",
                "cluster_key_file": "cluster.key",
                "cluster_cert": "gateway.pem",
                "cluster_cert_key": "gateway.key",
                "cluster_ca": "ca.pem",
                "ray_token_file": "ray.token",
            },
        ),
        (
            "worker",
            {
                "tls_cert": "worker.pem",
                "tls_key": "worker.key",
                "cluster_key_file": "cluster.key",
                "cluster_ca": "ca.pem",
                "ray_token_file": "ray.token",
            },
        ),
    ],
)
def test_each_role_takes_what_it_needs_from_the_folder(role: str, files: Mapping[str, str]) -> None:
    config = read_config(["--secrets-dir", "/s", "--role", role], {})

    values = vars(config)
    found = {name: value for name, value in values.items() if name != "secrets_dir" and str(value).startswith("/s")}
    assert found == {name: f"/s/{file}" for name, file in files.items()}


@pytest.mark.slow
def test_a_gateway_with_the_folder_makes_workers_that_use_it(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_secrets(folder, [], now=today())
    options = ("--secrets-dir", str(folder), "--workers", "1", "--metrics-host", "127.0.0.1", "--metrics-port", "0")
    with gateway(*options) as running:
        address = running.address.replace("grpc://127.0.0.1", "grpcs://localhost")
        token = (folder / "client.token").read_text().strip()
        with tg.connect(address, token=token, ca_cert=str(folder / "ca.pem"), timeout_seconds=30):
            assert (tg.asarray([1.0]) + 1).numpy() == 2.0
        port = address.rpartition(":")[2]
        assert commands.main(["health", "--address", f"localhost:{port}", "--ca-cert", str(folder / "ca.pem")]) == 0


@pytest.mark.slow
def test_a_server_with_the_folder_serves_the_client_that_has_the_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    assert commands.main(["init", str(folder)]) == 0
    said = capsys.readouterr().out
    assert str(folder / "client.token") in said and str(folder / "ca.pem") in said
    token = (folder / "client.token").read_text().strip()
    assert token not in said
    process, address = start("--secrets-dir", str(folder), "--host", "0.0.0.0")
    port = address.rpartition(":")[2]
    try:
        with tg.connect(f"grpcs://localhost:{port}", token=token, ca_cert=str(folder / "ca.pem")) as session:
            assert (tg.asarray([1.0]) + 1).numpy() == 2.0
            assert session.backend == "numpy"
        with (
            pytest.raises((AccessError, ConnectionFailed)),
            tg.connect(f"grpcs://localhost:{port}", token="telegrad_of_nobody_at_all", ca_cert=str(folder / "ca.pem")),
        ):
            pass
        asked = ["health", "--address", f"localhost:{port}"]
        assert commands.main([*asked, "--ca-cert", str(folder / "ca.pem")]) == 0
        monkeypatch.setenv("TELEGRAD_SERVER_SECRETS_DIR", str(folder))
        monkeypatch.setenv("TELEGRAD_SERVER_PORT", port)
        assert commands.main(["health"]) == 0
    finally:
        assert stop(process) == 0
    assert commands.main(["health", "--timeout-seconds", "1"]) == 1


def test_a_machine_without_the_extra_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "telegrad_server.secrets_folder")

    assert commands.main(["init", str(tmp_path / "s")]) == 2

    assert "pip install 'telegrad[server]'" in capsys.readouterr().err
