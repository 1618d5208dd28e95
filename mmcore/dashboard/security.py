"""The one door that every request goes through, whatever page it asks for.

In this order: the Host header (a rebound name is refused), the path, the method, where the request
comes from, the login, and, for what changes something, the size of the body and the form's token.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs, quote, unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmcore.dashboard.session import Sessions, WrongTries

MAX_BODY_BYTES = 64 * 1024
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_OPEN_PATHS = frozenset({"/login", "/healthz"})
_METHODS = frozenset({"GET", "HEAD", "POST"})
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"


class Door:
    """Lets a request in, or answers it."""

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, wrong_tries: WrongTries, hosts: Iterable[str]
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._wrong_tries = wrong_tries
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request; see the module."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        if answer is None and scope["method"] == "POST":
            answer, receive = await self._check_post(scope, headers, receive)
        if answer is not None:
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path: str = scope["path"]
        if not self._is_known_host(headers.get("host", "")):
            return _refuse(scope, 421, "this name is not one that the dashboard answers to")
        if not _is_plain_path(scope):
            return _refuse(scope, 400, "the path is not one of this dashboard")
        if scope["method"] not in _METHODS:
            return _refuse(scope, 405, "only GET, HEAD and POST are known here")
        if not _is_from_here(scope, headers):
            return _refuse(scope, 403, "the request comes from another site")
        scope["state"] = {**scope.get("state", {}), "session": "", "csrf_token": ""}
        return self._log_in(scope, headers, path)

    def _is_known_host(self, host: str) -> bool:
        name, separator, port = host.rpartition(":")
        if not separator or not port.isdecimal():
            name = host
        return name.lower().rstrip(".") in self._hosts

    def _log_in(self, scope: Scope, headers: Headers, path: str) -> Response | None:
        session = cookie_parser(headers.get("cookie", "")).get(self._sessions.cookie_name, "")
        if session and self._sessions.is_valid(session):
            scope["state"]["session"] = session
            scope["state"]["csrf_token"] = self._sessions.csrf_token(session)
            return None
        kind, _, candidate = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            client = client_of(scope)
            wait = self._wrong_tries.retry_after_seconds(client)
            if wait:
                return _refuse(scope, 429, "too many wrong tokens", {"retry-after": str(wait)})
            if self._sessions.is_token(candidate.strip()):
                scope["state"]["is_bearer"] = True
                return None
            self._wrong_tries.add(client)
            return _unauthorised(scope, "the token is wrong")
        if path in _OPEN_PATHS or path.startswith("/static/"):
            return None
        if headers.get("hx-request") == "true":
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        if path.startswith("/api/") or scope["method"] == "POST":
            return _unauthorised(scope, "log in, or send the token: Authorization: Bearer TOKEN")
        wanted = path + (
            f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        )
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303)

    async def _check_post(
        self, scope: Scope, headers: Headers, receive: Receive
    ) -> tuple[Response | None, Receive]:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in ("", _FORM, _JSON):
            return _refuse(scope, 415, f"send {_FORM} or {_JSON}"), receive
        body = await _read(receive)
        if body is None:
            return _refuse(scope, 413, f"the body is larger than {MAX_BODY_BYTES} bytes"), receive
        if not scope["state"].get("is_bearer") and scope["path"] != "/login":
            carried = headers.get("x-csrf-token", "") or _form_token(media_type, body)
            if not self._sessions.is_csrf_token(carried, scope["state"]["session"]):
                why = "the form was not made for this session: load the page again"
                return _refuse(scope, 403, why), receive
        return None, _replay(body, receive)


def client_of(scope: Scope) -> str:
    """Return the address that wrong tries are counted for."""
    return str(scope["client"][0]) if scope.get("client") else "unknown"


def _is_plain_path(scope: Scope) -> bool:
    """Return whether a path has no part that a storage could read as another place."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    raw = raw.partition(b"?")[0]
    lowered = raw.lower()
    if any(code in lowered for code in (b"%2f", b"%5c", b"%00", b"\\", b"//")):
        return False
    decoded = unquote_to_bytes(raw)
    if b"%" in decoded or any(byte < 0x20 or byte == 0x7F for byte in decoded):
        return False
    return not any(part in (b".", b"..") for part in decoded.split(b"/"))


def _is_from_here(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser says that one of our own pages, or a person, asks.

    Another site may link to a page (its reader has no session there: the cookie is Strict).
    """
    site = headers.get("sec-fetch-site", "")
    if scope["method"] != "POST":
        if site in ("", "none", "same-origin"):
            return True
        return headers.get("sec-fetch-mode") == "navigate" and (
            headers.get("sec-fetch-dest") == "document"
        )
    if site:
        return site == "same-origin"
    origin = headers.get("origin", "")
    # "null" is what a form of our own sends under no-referrer; its token is checked in any case
    return origin in ("", "null") or origin.partition("://")[2] == headers.get("host", "")


async def _read(receive: Receive) -> bytes | None:
    """Return the body, or None when it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body again, and then what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _form_token(media_type: str, body: bytes) -> str:
    if media_type != _FORM:
        return ""
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=200)
    return fields.get("csrf_token", [""])[0]


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _unauthorised(scope: Scope, why: str) -> Response:
    return _refuse(scope, 401, why, {"www-authenticate": "Bearer"})


def _refuse(
    scope: Scope, status: int, why: str, headers: Mapping[str, str] | None = None
) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": why}, status_code=status, headers=headers)
    return PlainTextResponse(f"{status}: {why}\n", status_code=status, headers=headers)
