"""Looks at a port below gRPC, whose one word for everything is UNAVAILABLE.

Who listens, whether it speaks TLS, and which certificate it has.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import cast

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client of HTTP/2 says first: its preface and empty settings (RFC 9113, section 3.4)."""

SETTINGS = 4
"""The type of the frame with which an HTTP/2 server answers, the fourth byte (section 6.5)."""

EXPIRED, NOT_YET = 10, 9
STRANGER = (2, 18, 19, 20, 21)
OTHER_NAME = (62, 64)
"""OpenSSL's verdicts on certificates (X509_V_ERR_*): over, not begun, of an unknown authority, for another host."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was found, and what to do."""

    found: str
    advice: str


def reach(target: str, seconds: float) -> Trouble | None:
    """Whether anything listens at host:port; None if so."""
    host, port = split(target)
    try:
        socket.create_connection((host, port), seconds).close()
    except socket.gaierror:
        return Trouble(f"no host has the name {host}", "check the name, and whether this machine's DNS or VPN knows it")
    except ConnectionRefusedError:
        return Trouble(
            f"{host} refuses port {port}: nothing listens there",
            "start the server (telegrad serve), check the port, or publish it if it is in a container",
        )
    except TimeoutError:
        return Trouble(
            f"{host} does not answer on port {port} within {seconds:g} s",
            "check the address; if it is right, a firewall drops the packets",
        )
    except OSError as error:
        return Trouble(f"{host} cannot be reached: {error.strerror or error}", "check the network on the way")
    return None


def plaintext(target: str, seconds: float) -> Trouble | None:
    """Whether HTTP/2 is spoken there in clear text; None if so."""
    try:
        with socket.create_connection(split(target), seconds) as plain:
            plain.sendall(HTTP2)
            answer = _read(plain, 9)
    except OSError:
        answer = b""
    if len(answer) == 9 and answer[3] == SETTINGS:
        return None
    if _speaks_tls(target, seconds):
        return Trouble(
            f"the server at {target} speaks TLS, and the address says grpc://",
            f"write grpcs://{target}, and give its authority with --ca-cert FILE",
        )
    return Trouble(f"what listens at {target} does not speak gRPC", "check the port; telegrad's is 50051 by default")


def certificate(target: str, ca_cert: str | None, seconds: float) -> float | Trouble:
    """When the server's certificate ends, in seconds since 1970, if it is good and for this host."""
    host, _ = split(target)
    try:
        context = ssl.create_default_context(cafile=ca_cert)
    except (OSError, ssl.SSLError) as error:
        return Trouble(f"{ca_cert} is no readable certificate: {error}", "give the server's ca.pem to --ca-cert")
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(split(target), seconds) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return ssl.cert_time_to_seconds(cast(str, (secure.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        return _of_certificate(error, host, ca_cert)
    except (ssl.SSLError, ConnectionError) as error:
        return Trouble(
            f"what listens at {target} does not speak TLS ({getattr(error, 'reason', None) or error})",
            f"write grpc://{target} if the server has none (loopback only), or start it with --tls-cert and --tls-key",
        )
    except OSError as error:
        return Trouble(
            f"the server does not finish the TLS handshake: {error}", "check that the port is a telegrad server's"
        )


def _of_certificate(error: ssl.SSLCertVerificationError, host: str, ca_cert: str | None) -> Trouble:
    code = error.verify_code
    if code == EXPIRED:
        return Trouble(
            "the server's certificate, or its authority's, has expired",
            "on the server: telegrad-server init DIR renews it, then restart the server; or set this machine's clock",
        )
    if code == NOT_YET:
        return Trouble(
            "the server's certificate is not valid yet", "set the clocks of this machine and of the server by NTP"
        )
    if code in OTHER_NAME:
        return Trouble(
            f"the server's certificate is not for {host}",
            f"use a name that it has, or on the server: telegrad-server init DIR --name {host}, then restart it",
        )
    if code in STRANGER:
        whose = "of another authority than the one in " + ca_cert if ca_cert else "of no public authority"
        return Trouble(f"the server's certificate is {whose}", "get the server's ca.pem, and give it with --ca-cert")
    return Trouble(f"the server's certificate is refused: {error.verify_message}", "ask the operator for a new one")


def _speaks_tls(target: str, seconds: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: only who speaks is asked
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(split(target), seconds) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _read(plain: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := plain.recv(length - len(data))):
        data += more
    return data


def split(target: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)
