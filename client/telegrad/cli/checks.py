"""What the doctor looks at, one check after the other: each says what it found, and what to do if that is not well.

A check that fails ends the examination, so each may count on those before it.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from telegrad import __version__
from telegrad.cli import wire_probe
from telegrad.cli.report import exit_of
from telegrad.cli.target import Target
from telegrad.errors import QuotaExceeded, TelegradError, VersionMismatch
from telegrad.transport import Greeting
from telegrad.transport.access import Address, parse_address

CLOCK_SECONDS = 30.0
"""A clock that is further off is worth a word: certificates and logs are read by it."""

CERTIFICATE_DAYS = 30
"""A certificate that ends sooner is worth a word; the server's init renews it from then on."""

QUEUE_SECONDS = 3.0

Verdict = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's. ``exit`` is the program's exit status, if it failed."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    exit: int = 0


@dataclass
class Examination:
    """What earlier checks have found out for later ones."""

    target: Target | None
    token: str | None = None
    greeting: Greeting | None = None

    @property
    def server(self) -> Target:
        """The server that is examined."""
        assert self.target is not None
        return self.target

    @property
    def address(self) -> Address:
        """Its address; the first check has read it."""
        return parse_address(self.server.address)


def client() -> Finding:
    """This side's versions."""
    parts = (f"{name} {version(name)}" for name in ("numpy", "grpcio", "protobuf"))
    return Finding("client", "ok", f"telegrad {__version__}, Python {platform.python_version()}, {', '.join(parts)}")


def address(state: Examination) -> list[Finding]:
    """Whether the address is one, and where the token comes from."""
    try:
        where = state.address
        state.token = state.server.find_token()
    except TelegradError as error:
        return [Finding("address", "fail", error.message, "correct the profile or the address", exit_of(error))]
    name = f" (profile {state.server.profile})" if state.server.profile is not None else ""
    found = f"{state.server.address}{name}, {'with' if state.token is not None else 'without'} a token"
    if state.token is not None and not where.is_secure and not where.is_loopback:
        advice = "write grpcs://; a server that other machines reach has TLS"
        return [Finding("address", "fail", f"{found}, which is not sent in clear text over a network", advice, 4)]
    return [Finding("address", "ok", found)]


def connect(state: Examination) -> list[Finding]:
    """Whether anything listens there."""
    trouble = wire_probe.reach(state.address.target, state.server.timeout_seconds)
    if trouble is not None:
        return [Finding("connect", "fail", trouble.found, trouble.advice, 3)]
    return [Finding("connect", "ok", f"something listens at {state.address.target}")]


def tls(state: Examination) -> list[Finding]:
    """Whether both sides speak TLS, or neither, and whether the certificate is good."""
    target, seconds = state.address.target, state.server.timeout_seconds
    if not state.address.is_secure:
        trouble = wire_probe.plaintext(target, seconds)
        if trouble is not None:
            return [Finding("tls", "fail", trouble.found, trouble.advice, 3)]
        return [Finding("tls", "ok", "none: bytes cross in clear text")]
    result = wire_probe.certificate(target, state.server.ca_cert, seconds)
    if isinstance(result, wire_probe.Trouble):
        return [Finding("tls", "fail", result.found, result.advice, 3)]
    days = (result - time.time()) / 86_400
    found = f"the certificate is good, until {time.strftime('%Y-%m-%d', time.gmtime(result))}"
    if days < CERTIFICATE_DAYS:
        advice = "on the server: telegrad-server init DIR renews it; then restart the server"
        return [Finding("tls", "warn", f"{found}, in {days:.0f} days", advice)]
    return [Finding("tls", "ok", found)]


def server(state: Examination) -> list[Finding]:
    """Whether it is a telegrad server of a version that we can talk to, and takes the token."""
    from telegrad.ops import registry
    from telegrad.transport.hello import ask  # loads gRPC

    asked = state.server
    try:
        greeting = ask(asked.address, token=state.token, ca_cert=asked.ca_cert, timeout_seconds=asked.timeout_seconds)
    except VersionMismatch as error:
        advice = "pip install --upgrade telegrad on the older side"
        return [Finding("server", "fail", error.message, advice, exit_of(error))]
    except TelegradError as error:
        if error.reason == "TOKEN_INVALID":
            advice = "ask the operator for a token and run telegrad login; on the server: telegrad token new TENANT"
            return [Finding("token", "fail", "the server does not know this token", advice, exit_of(error))]
        advice = "what listens there is no telegrad server, or a proxy is between; check address and port"
        return [Finding("server", "fail", error.message, advice, exit_of(error))]
    state.greeting = greeting
    found = f"telegrad {greeting.server_version}"
    missing = sorted(set(registry()) - greeting.ops)
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return [Finding("server", "warn", f"{found} does not know the ops {some}", "upgrade the server to use them")]
    return [Finding("server", "ok", found)]


def token(state: Examination) -> list[Finding]:
    """Whether a token is wanted and there is one."""
    from telegrad.transport.hello import wants_token

    asked = state.server
    try:
        is_wanted = wants_token(asked.address, ca_cert=asked.ca_cert, timeout_seconds=asked.timeout_seconds)
    except TelegradError as error:
        return [Finding("token", "fail", error.message, "try again", exit_of(error))]
    if is_wanted and state.token is None:
        advice = "run telegrad login with --token-file FILE, or set TELEGRAD_TOKEN_FILE"
        return [Finding("token", "fail", "the server wants a token, and there is none", advice, 4)]
    return [Finding("token", "ok", "the server takes it" if is_wanted else "the server wants none")]


def clock(state: Examination) -> list[Finding]:
    """Whether both clocks agree."""
    assert state.greeting is not None
    if state.greeting.time is None:
        return [Finding("clock", "skip", "the server is older and does not tell its time")]
    return [compare_clocks(state.greeting.time - time.time())]


def compare_clocks(ahead_seconds: float) -> Finding:
    """What a server's clock that is so far ahead of this one's means."""
    if abs(ahead_seconds) <= CLOCK_SECONDS:
        return Finding("clock", "ok", f"both agree within {max(1.0, abs(ahead_seconds)):.0f} s")
    found = f"the server's is {abs(ahead_seconds):.0f} s {'ahead' if ahead_seconds > 0 else 'behind'}"
    return Finding("clock", "warn", found, "set both by NTP: certificates and logs are read by it")


def compute(state: Examination) -> list[Finding]:
    """Whether a session opens there and computes, and with what."""
    from telegrad.creation import asarray
    from telegrad.opening import connect

    asked = state.target
    try:
        with connect(
            asked.address if asked is not None else None,
            token=state.token,
            ca_cert=asked.ca_cert if asked is not None else None,
            timeout_seconds=asked.timeout_seconds if asked is not None else 10.0,
            queue_seconds=QUEUE_SECONDS,
            on_queued=lambda position, reason: None,
            new=True,
        ) as session:
            began = time.monotonic()
            total = asarray([1.0, 2.0, 3.0]).sum().item()
            took, backend, warnings = time.monotonic() - began, session.backend, session.warnings
            home = f" on {session.home}" if session.home else ""
    except QuotaExceeded as error:
        advice = "wait, end sessions, or ask the operator for workers; telegrad devices shows who uses them"
        return [Finding("compute", "fail", error.message, advice, exit_of(error))]
    except TelegradError as error:
        return [Finding("compute", "fail", error.message, "the server's log says more", exit_of(error))]
    if total != 6.0:
        advice = "do not train there; report it with the output of telegrad hello"
        return [Finding("compute", "fail", f"1 + 2 + 3 was {total}{home}", advice, 1)]
    findings = [Finding("compute", "ok", f"{backend}{home}: a sum and back in {1e3 * took:.1f} ms")]
    if backend == "numpy" and not warnings:
        advice = "fine if there is none; else start the server with --backend cupy, which says why one does not work"
        findings.append(Finding("gpu", "warn", "no GPU computes there", advice))
    elif backend != "numpy":
        findings.append(Finding("gpu", "ok", "a GPU computes there"))
    advice = "on the server, if it has a GPU: pip install 'telegrad[cuda13]' (or cuda12), and no --backend numpy"
    findings += [
        Finding("gpu", "warn", warning, advice) if backend == "numpy" else _of(warning) for warning in warnings
    ]
    return findings


def _of(warning: str) -> Finding:
    return Finding("warning", "warn", warning)


Check = Callable[[Examination], list[Finding]]
CHECKS: Sequence[tuple[str, Check]] = (
    ("address", address),
    ("connect", connect),
    ("tls", tls),
    ("server", server),
    ("token", token),
    ("clock", clock),
    ("compute", compute),
)
EMBEDDED_CHECKS: Sequence[tuple[str, Check]] = (("compute", compute),)
