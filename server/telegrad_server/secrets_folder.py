"""The folder of secrets that `telegrad-server init` makes: a private authority, certificates, tokens and keys.

What is there is kept, so it may be run at every start. A certificate of ours that is about to end, or that lacks a
name, is made anew; so a server that was given certificates of another authority keeps those too.

    ca.pem ca.key             the authority: clients trust ca.pem; ca.key, which renews, may be kept elsewhere
    gateway.pem gateway.key   what clients see
    worker.pem worker.key     what the gateway sees of a worker, under the name "telegrad-worker"
    tokens client.token       a token with its tenant, for the server, and alone, for a client
    cluster.key ray.token     what gateway and workers, and Ray's processes, know each other by
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from telegrad.errors import AccessError

AUTHORITY_LIFE = timedelta(days=3652)
LEAF_LIFE = timedelta(days=730)
RENEWED_BEFORE_END = timedelta(days=30)
CLOCK_SKEW = timedelta(hours=1)
GATEWAY_NAMES = ("localhost", "127.0.0.1", "::1", "gateway")
WORKER_NAME = "telegrad-worker"
TENANT = "default"


@dataclass
class Report:
    """What was done to each file, in words: ``made``, ``renewed`` or ``kept``; and what the operator should know."""

    files: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


def make_secrets(folder: Path, names: Sequence[str], *, now: datetime) -> Report:
    """Make what is missing in the folder, renew what is about to end, and keep everything else.

    ``names`` are the addresses, besides those within the cluster, at which clients reach the gateway. AccessError if
    others can write to the folder, or a certificate must be renewed and the authority's key is not there.
    """
    with _locked(folder):
        work = _Work(folder, now, Report())
        work.authority()
        work.leaf("gateway", (*GATEWAY_NAMES, *names))
        work.leaf("worker", (WORKER_NAME,))
        work.tokens()
        work.text("cluster.key", secrets.token_hex(32))
        work.text("ray.token", secrets.token_hex(32))
        return work.report


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """The folder, made if need be, for one process at a time."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise AccessError(f"{folder} cannot be used for secrets: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AccessError(f"others can write to {folder}, so it cannot hold secrets; run chmod go-w {folder}")
        if found.st_uid not in (os.geteuid(), 0):
            raise AccessError(f"{folder} belongs to user {found.st_uid}, who could replace what is in it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass
class _Work:
    folder: Path
    now: datetime
    report: Report

    # ---- files

    def _write(self, name: str, data: bytes, *, verdict: str = "made", mode: int = 0o600) -> None:
        """The whole file or none: written beside, then renamed."""
        beside = self.folder / f".{name}.{secrets.token_hex(4)}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(descriptor, mode)  # whatever the umask
                os.fsync(descriptor)
            beside.replace(self.folder / name)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self.report.files[name] = verdict

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _keep(self, *names: str) -> None:
        self.report.files.update(dict.fromkeys(names, "kept"))

    def text(self, name: str, fresh: str) -> str:
        """A secret of one line: what is there, else a fresh one."""
        found = self._read(name)
        if found is not None:
            self._keep(name)
            return found.decode().strip()
        self._write(name, fresh.encode() + b"\n")
        return fresh

    def tokens(self) -> None:
        """The server's list, and the client's token, which may have been taken away since."""
        if self._read("tokens") is not None:
            self._keep("tokens", *(("client.token",) if self._read("client.token") is not None else ()))
            return
        token = self.text("client.token", f"telegrad_{secrets.token_urlsafe(32)}")
        self._write("tokens", f"{token} {TENANT}\n".encode())

    # ---- keys and certificates

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        data = self._read(name)
        if data is not None:
            key = serialization.load_pem_private_key(data, password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise AccessError(f"{self.folder / name} is no key that init made; move it away to have one made")
            self.report.files.setdefault(name, "kept")
            return key
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._write(name, pem)
        return key

    def _certificate(self, name: str) -> x509.Certificate | None:
        data = self._read(name)
        return x509.load_pem_x509_certificate(data) if data is not None else None

    def _ends_soon(self, certificate: x509.Certificate) -> bool:
        return certificate.not_valid_after_utc - self.now <= RENEWED_BEFORE_END

    def authority(self) -> None:
        """The certificate that signs the others."""
        found = self._certificate("ca.pem")
        if found is not None and not self._ends_soon(found):
            self._keep("ca.pem", *(("ca.key",) if self._read("ca.key") is not None else ()))
            return
        if found is not None and self._read("ca.key") is None:
            raise AccessError(f"{self.folder / 'ca.pem'} is about to end; put its ca.key beside it to renew it")
        key = self._key("ca.key")
        digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
        name = _name(f"telegrad authority {digest.hex()[:8]}")  # of one key always the same
        builder = self._builder(name, name, key.public_key(), key.public_key(), self.now + AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self._write("ca.pem", pem, verdict="renewed" if found is not None else "made", mode=0o644)
        if found is not None:
            self.report.notes.append("the authority was renewed: give the new ca.pem to all clients")

    def leaf(self, name: str, hosts: Sequence[str]) -> None:
        """A server's certificate for these names and those that it had."""
        authority = self._certificate("ca.pem")
        assert authority is not None
        pem = f"{name}.pem"
        found = self._certificate(pem)
        if found is not None:
            hosts = (*_hosts(found), *hosts)
            ends_soon, is_ours = self._ends_soon(found), _has_signed(authority, found)
            if not is_ours:
                self.report.notes.append(
                    f"{pem} is of another authority, where it must be renewed before"
                    f" {found.not_valid_after_utc:%Y-%m-%d}; clients trust that authority, not ca.pem"
                )
            has_key = self._read(f"{name}.key") is not None
            has_names = set(_alternatives(hosts)) == set(_alternatives(_hosts(found)))
            if not is_ours or (has_key and has_names and not ends_soon):
                self._keep(pem, *((f"{name}.key",) if has_key else ()))
                return
        if self._read("ca.key") is None:
            raise AccessError(f"{self.folder / pem} must be made; put the authority's ca.key beside it for that")
        signer, key = self._key("ca.key"), self._key(f"{name}.key")
        end = min(self.now + LEAF_LIFE, authority.not_valid_after_utc)
        builder = self._builder(
            _name(f"telegrad {name}"), authority.subject, key.public_key(), signer.public_key(), end
        )
        builder = builder.add_extension(x509.SubjectAlternativeName(_alternatives(hosts)), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        data = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self._write(pem, data, verdict="renewed" if found is not None else "made", mode=0o600)
        if found is not None:
            self.report.notes.append(f"{pem} was renewed: restart what serves with it")

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        signer: ec.EllipticCurvePublicKey,
        end: datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - CLOCK_SKEW)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """Addresses and names as a certificate has them, each once."""
    found: dict[x509.GeneralName, None] = {}
    for host in hosts:
        try:
            found[x509.IPAddress(ipaddress.ip_address(host))] = None
        except ValueError:
            try:
                found[x509.DNSName(host)] = None
            except ValueError:
                raise AccessError(f"{host!r} is neither an address nor a host's name in ASCII") from None
    return list(found)


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def today() -> datetime:
    """Now, as certificates count it."""
    return datetime.now(UTC)
