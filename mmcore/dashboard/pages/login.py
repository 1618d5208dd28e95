"""Logging in and out, and whether the dashboard is alive."""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from mmcore.dashboard.security import client_of
from mmcore.dashboard.session import SESSION_SECONDS
from mmcore.dashboard.templating import render


async def log_in(request: Request) -> Response:
    """Show the form, or take a token from the address (the link that `mm up` prints)."""
    if request.method == "POST":
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
        token, wanted = fields.get("token", [""])[0], fields.get("next", ["/"])[0]
    else:
        token = request.query_params.get("token", "")
        wanted = request.query_params.get("next", "/")
    wanted = _own_path(wanted)
    if not token and request.method != "POST":
        if request.state.session:
            return RedirectResponse(wanted, status_code=303)
        return _form(request, wanted, "")
    client, tries = client_of(request.scope), request.app.state.wrong_tries
    wait = tries.retry_after_seconds(client)
    if wait:
        problem = f"Too many wrong tokens. Try again in {wait} seconds."
        return _form(request, wanted, problem, 429, {"retry-after": str(wait)})
    sessions = request.app.state.sessions
    if not sessions.is_token(token.strip()):
        tries.add(client)
        return _form(request, wanted, "That is not the token of this dashboard.", 401)
    answer = RedirectResponse(wanted, status_code=303)
    answer.set_cookie(
        sessions.cookie_name,
        sessions.issue(),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


async def log_out(request: Request) -> Response:
    """Forget the session in this browser."""
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(request.app.state.sessions.cookie_name, httponly=True, samesite="strict")
    return answer


async def healthz(request: Request) -> Response:
    """Say that the dashboard answers; says nothing else, as it asks for no login."""
    return PlainTextResponse("ok\n")


def _form(
    request: Request,
    wanted: str,
    problem: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    return render(
        request,
        "login.html",
        status_code=status,
        headers=headers,
        section="",
        title="Log in",
        next=wanted,
        problem=problem,
    )


def _own_path(wanted: str) -> str:
    """Return where to go after the login: a path of this dashboard, never another site."""
    is_own = wanted.startswith("/") and not wanted.startswith("//")
    if not is_own or "\\" in wanted or any(ord(letter) <= 0x20 for letter in wanted):
        return "/"
    return wanted


routes = [
    Route("/login", log_in, methods=["GET", "POST"]),
    Route("/logout", log_out, methods=["POST"]),
    Route("/healthz", healthz, methods=["GET"]),
]
