"""What the page's server answers: its files to everyone, the tenant's things to who shows the token.

Nothing is kept in cookies, so no other page can act for who has this one open. A POST wants a header that a form
cannot send besides. Where no tokens are, only names of this machine are answered to, so that no name that somebody
else has made point here can read anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from telegrad.errors import AccessError, GraphError, NotFound, ResourceError, TelegradError
from telegrad.wire.jobs import Fork
from telegrad.wire.naming import check_name
from telegrad.wire.status import REASONS

from telegrad_server.access import Caller, Gate, is_loopback
from telegrad_server.bug import bug
from telegrad_server.web import views
from telegrad_server.web.files import page_files, tag_of
from telegrad_server.web.http import Request, Response
from telegrad_server.web.sources import JobBook, Sources
from telegrad_server.web.sparks import Sparks

MOST_JOBS = 200
"""So many jobs are listed, the newest."""

MOST_ROWS = 10_000
"""A source gives this many rows of metrics at once, or a step's more; who gets as many asks again."""

MOST_EVENTS = 5_000
"""So many events are told at once, the oldest of those that are asked for."""

MOST_FIELDS = 16
"""So many parts a query has at most."""

_DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)

POST_HEADER = "x-telegrad"
"""A POST carries it. A page from elsewhere would have to ask first whether it may, and is not answered."""

SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
    "UNIMPLEMENTED": 501,
}


class _Call(NamedTuple):
    caller: Caller
    key: str
    query: Mapping[str, str]

    def whole(self, name: str, default: int | None) -> int | None:
        """A number of the query. GraphError if it is none."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 18):
            raise GraphError(f"{name} must be a whole number, not {text[:32]!r}", reason="MALFORMED_MESSAGE")
        return int(text)

    def decimals(self, prefix: str) -> dict[str, float]:
        """The numbers of all parts of the query whose names begin so, by the rest. GraphError for what is none."""
        found: dict[str, float] = {}
        for name, text in self.query.items():
            if not name.startswith(prefix):
                continue
            if _DECIMAL.fullmatch(text) is None:
                raise GraphError(f"{name} must be a number, not {text[:32]!r}", reason="MALFORMED_MESSAGE")
            found[name.removeprefix(prefix)] = float(text)
        return found

    @property
    def request_id(self) -> str:
        """What tells this request from any other. GraphError if it is missing."""
        found = self.query.get("request", "")
        if not 8 <= len(found) <= 64:
            raise GraphError("request= must be an id of 8 to 64 characters, made anew for each request",
                             reason="JOB_INVALID")  # fmt: skip
        return found


class Site:
    """The page and what it asks for. Every method may be called by any thread."""

    def __init__(self, gate: Gate, sources: Sources) -> None:
        self._gate, self._sources = gate, sources
        self._files = page_files()
        self._sparks = Sparks(sources.jobs) if sources.jobs is not None else None
        self._looks: Mapping[tuple[str, ...], Callable[[_Call], views.Json]] = {
            ("hello",): self._hello,
            ("jobs",): self._jobs,
            ("jobs", "*"): self._job,
            ("jobs", "*", "metrics"): self._metrics,
            ("jobs", "*", "numbers"): lambda call: views.numbers(self._book.numbers(call.caller.tenant, call.key)),
            ("cluster",): self._cluster,
            ("sessions",): self._sessions,
            ("datasets",): self._datasets,
        }
        self._acts: Mapping[tuple[str, ...], Callable[[_Call], views.Json]] = {
            ("jobs", "*", "pause"): lambda call: views.job(self._book.pause(call.caller.tenant, call.key)),
            ("jobs", "*", "resume"): lambda call: views.job(self._book.resume(call.caller.tenant, call.key)),
            ("jobs", "*", "cancel"): lambda call: views.job(self._book.cancel(call.caller.tenant, call.key)),
            ("jobs", "*", "extend"): self._extend,
            ("jobs", "*", "fork"): self._fork,
            ("jobs", "*", "rewind"): self._rewind,
        }

    # ---- requests

    def answer(self, request: Request) -> Response:
        """The answer to a request; raises nothing."""
        try:
            return self._answered(request)
        except TelegradError as error:
            return self._failed(error)
        except Exception as error:  # the edge
            return self._failed(bug(error))

    def refuse(self, status: int, message: str) -> Response:
        """The answer to what is no good request."""
        return self._json(status, {"error": {"reason": "MALFORMED_MESSAGE", "message": message}})

    def _answered(self, request: Request) -> Response:
        if not self._gate.tenants and not _is_here(request.headers.get("host", "")):
            return self.refuse(421, "this server answers to this machine's own names only, as it wants no token")
        if request.method not in ("GET", "HEAD", "POST"):
            return self._with(self.refuse(405, "only GET, HEAD and POST are known here"), {"Allow": "GET, HEAD, POST"})
        try:
            target = urlsplit(request.target)
            path = [unquote(part, errors="strict") for part in target.path.split("/")]
            query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"))
        except ValueError:
            return self.refuse(400, "the request's target is none")
        if path[:2] != ["", "api"]:
            return self._file(request, target.path)
        caller = self._gate.caller_of(request.headers.get("authorization"))
        parts = tuple(path[2:])
        routes = self._acts if request.method == "POST" else self._looks
        pattern = (parts[0], "*", *parts[2:]) if len(parts) > 1 else parts
        handler = routes.get(pattern)
        if handler is None:
            raise NotFound("there is nothing of this name here", reason="NOT_FOUND")
        call = _Call(caller, parts[1] if len(parts) > 1 else "", query)
        if request.method == "POST":
            self._check_post(request, caller)
            return self._json(200, handler(call))
        return self._tagged(request, views.encoded(handler(call)), "application/json", "private, no-cache")

    def _check_post(self, request: Request, caller: Caller) -> None:
        if POST_HEADER not in request.headers or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise AccessError(f"a POST must come from the page itself, with the header {POST_HEADER}")
        if caller.may_only_read:
            raise AccessError("the token may only read: its line in the server's token file says so")

    # ---- looks

    @property
    def _book(self) -> JobBook:
        if self._sources.jobs is None:
            raise ResourceError(
                "this server runs no jobs: it was started without --data-dir, which its operator can give",
                reason="STORAGE_MISSING",
            )
        return self._sources.jobs

    def _hello(self, call: _Call) -> views.Json:
        sources = self._sources
        return {
            "role": sources.role,
            "version": sources.version,
            "tenant": call.caller.tenant,
            "wants_token": bool(self._gate.tenants),
            "may_act": not call.caller.may_only_read,
            "has_jobs": sources.jobs is not None,
            "has_datasets": sources.datasets is not None,
        }

    def _jobs(self, call: _Call) -> views.Json:
        jobs = self._book.all(call.caller.tenant)
        newest = list(reversed(jobs[-MOST_JOBS:]))
        assert self._sparks is not None
        curves = self._sparks.of(call.caller.tenant, newest)
        points = {id: spark.points for id, spark in curves.items()}
        return views.job_list(newest, points, total=len(jobs))

    def _job(self, call: _Call) -> views.Json:
        book, tenant = self._book, call.caller.tenant
        info = book.find(tenant, call.key)
        events = book.events(tenant, info.id, call.whole("after", 0) or 0)
        told = views.job_page(info, book.checkpoints(tenant, info.id), events[:MOST_EVENTS])
        return {**told, "more": len(events) > MOST_EVENTS}

    def _metrics(self, call: _Call) -> views.Json:
        after = call.whole("after_step", -1)
        rows = self._book.metrics(call.caller.tenant, call.key, -1 if after is None else after)
        return {"series": views.series(rows), "more": len(rows) >= MOST_ROWS}

    def _cluster(self, call: _Call) -> views.Json:
        hardware = self._sources.hardware
        return {
            "devices": [views.device(device) for device in hardware.devices(call.caller.tenant)],
            "waiting": hardware.waiting(),
        }

    def _sessions(self, call: _Call) -> views.Json:
        found = self._sources.hardware.sessions(call.caller.tenant)
        return {"sessions": [views.session(worker, sight) for worker, sight in found]}

    def _datasets(self, call: _Call) -> views.Json:
        shelf = self._sources.datasets
        found = shelf.list(call.caller.tenant) if shelf is not None else ()
        return {"is_offered": shelf is not None, "datasets": [views.dataset(description) for description in found]}

    # ---- acts

    def _extend(self, call: _Call) -> views.Json:
        epochs, steps = call.whole("epochs", None), call.whole("steps", None)
        if (epochs is None) == (steps is None):
            raise GraphError("extend takes either epochs= or steps=, in all", reason="JOB_INVALID")
        book = self._book
        return views.job(book.extend(call.caller.tenant, call.key, call.request_id, epochs=epochs, steps=steps))

    def _fork(self, call: _Call) -> views.Json:
        epochs, steps = call.whole("epochs", None), call.whole("steps", None)
        if epochs is not None and steps is not None:
            raise GraphError("fork takes epochs= or steps=, in all, and not both", reason="JOB_INVALID")
        name = check_name(call.query.get("name", ""), what="a job")
        fork = Fork(name=name, step=call.whole("step", None), epochs=epochs, steps=steps, numbers=call.decimals("set."))
        return views.job(self._book.fork(call.caller.tenant, call.key, call.request_id, fork))

    def _rewind(self, call: _Call) -> views.Json:
        step = call.whole("step", None)
        if step is None:
            raise GraphError("rewind takes step=, of one of the job's checkpoints", reason="JOB_INVALID")
        return views.job(self._book.rewind(call.caller.tenant, call.key, call.request_id, step))

    # ---- answers

    def _file(self, request: Request, path: str) -> Response:
        found = self._files.get(path)
        if found is None:
            raise NotFound("there is nothing of this name here", reason="NOT_FOUND")
        if request.method == "POST":
            return self._with(self.refuse(405, "a file takes no POST"), {"Allow": "GET, HEAD"})
        return self._tagged(request, found.body, found.type, "no-cache", tag=found.tag)

    def _tagged(self, request: Request, body: bytes, type: str, cache: str, *, tag: str = "") -> Response:
        tag = tag or tag_of(body)
        headers = {"Cache-Control": cache, "ETag": tag}
        known = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
        if tag in known:
            return self._with(Response(304), headers)
        return self._with(Response(200, body), {**headers, "Content-Type": type})

    def _json(self, status: int, value: views.Json) -> Response:
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return self._with(Response(status, views.encoded(value)), headers)

    def _failed(self, error: TelegradError) -> Response:
        row = REASONS.get(error.reason)
        status = STATUSES.get(row.code, 500) if row is not None else 500
        found = self._json(status, {"error": {"reason": error.reason, "message": error.message}})
        return self._with(found, {"WWW-Authenticate": "Bearer"}) if status == 401 else found

    @staticmethod
    def _with(response: Response, headers: Mapping[str, str]) -> Response:
        return Response(response.status, response.body, {**SECURITY, **response.headers, **headers})


def _is_here(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
