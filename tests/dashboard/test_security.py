from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import HERE, TOKEN, csrf_of, log_in
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from mmcore.dashboard.security import MAX_BODY_BYTES
from mmcore.dashboard.session import Sessions
from mmcore.dashboard.settings import Settings
from mmcore.errors import ConfigError

OPEN = ("/login", "/healthz", "/static/")


def routes_of(app: Starlette) -> list[tuple[str, str]]:
    """Every (method, path) of the application, with something in the place of parameters."""
    found = []
    for route in app.routes:
        assert isinstance(route, Route)
        path = route.path
        for name, convertor in route.param_convertors.items():
            kind = type(convertor).__name__
            value = "7" if "Integer" in kind else "x1"
            for spelled in (
                f"{{{name}:id}}",
                f"{{{name}:name}}",
                f"{{{name}:int}}",
                f"{{{name}:path}}",
                f"{{{name}}}",
            ):
                path = path.replace(spelled, value)
        assert "{" not in path, path
        found += [(method, path) for method in sorted(route.methods or ()) if method != "HEAD"]
    return found


def test_every_route_but_three_wants_a_login(app: Starlette, anonymous: TestClient) -> None:
    asked = 0
    for method, path in routes_of(app):
        if path.startswith(OPEN):
            continue
        answer = anonymous.request(method, path)
        where = f"{method} {path}"
        if method == "POST" or path.startswith("/api/"):
            assert answer.status_code == 401, where
            assert "bearer" in answer.headers["www-authenticate"].lower()
        else:
            assert answer.status_code == 303, where
            assert answer.headers["location"].startswith("/login?next="), where
        asked += 1
    assert asked > 10


def test_wrong_bearer_is_refused_on_every_route(
    app: Starlette, make_app: Callable[..., Starlette], root: Path
) -> None:
    for method, path in routes_of(app)[:8]:
        if path.startswith(OPEN):
            continue
        client = TestClient(make_app(root), base_url=HERE, follow_redirects=False)
        answer = client.request(method, path, headers={"authorization": "Bearer wrong"})
        assert answer.status_code == 401


def test_bearer_is_let_in_and_needs_no_form_token(anonymous: TestClient) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert anonymous.get("/api/runs", headers=bearer).status_code == 200
    answer = anonymous.post("/api/notify-data", headers=bearer, json={"dataset": "Not A Name"})
    assert answer.status_code == 400
    assert "no name of a dataset" in answer.json()["error"]


def test_cookie_is_for_us_alone_and_does_not_hold_the_token(anonymous: TestClient) -> None:
    answer = anonymous.post("/login", data={"token": TOKEN})
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert anonymous.get("/").status_code == 200


def test_wrong_token_is_refused_and_too_many_shut_the_door(anonymous: TestClient) -> None:
    for _ in range(10):
        answer = anonymous.post("/login", data={"token": "wrong"})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    answer = anonymous.post("/login", data={"token": TOKEN})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert anonymous.get("/login", params={"token": TOKEN}).status_code == 429
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert anonymous.get("/api/runs", headers=bearer).status_code == 429


def test_forged_altered_and_old_sessions_are_not_let_in(
    anonymous: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(TOKEN)
    good = sessions.issue()
    stranger = Sessions("another-token-that-is-long").issue()
    altered = good[:-1] + ("0" if good[-1] != "0" else "1")
    for value in ("", "x", "x.1.y", stranger, altered, good.replace(".", ".9", 1)):
        assert not sessions.is_valid(value), value
        headers = {"cookie": f"{sessions.cookie_name}={value}"}
        assert anonymous.get("/", headers=headers).status_code == 303
    assert sessions.is_valid(good)
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31 * 24 * 3600)
    assert not sessions.is_valid(good)


def test_login_never_leads_to_another_site(anonymous: TestClient) -> None:
    for wanted in (
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\tx",
    ):
        answer = anonymous.get("/login", params={"token": TOKEN, "next": wanted})
        assert answer.headers["location"] == "/", wanted
    answer = anonymous.get("/login", params={"token": TOKEN, "next": "/runs?status=failed"})
    assert answer.headers["location"] == "/runs?status=failed"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost@evil.example"],
)
def test_rebound_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert client.get("/healthz", headers={"host": host}).status_code == 421


def test_own_and_configured_names_are_answered(
    make_app: Callable[..., Starlette], root: Path
) -> None:
    client = log_in(make_app(root, allowed_hosts=("mm.example.org",)))
    for host in ("localhost:9", "127.0.0.1", "[::1]:8080", "MM.example.org"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200, host
    assert client.get("/healthz", headers={"host": "other.example.org"}).status_code == 421


def test_post_without_the_forms_token_is_refused(client: TestClient) -> None:
    for data in ({}, {"csrf_token": ""}, {"csrf_token": "0" * 64}):
        answer = client.post("/logout", data=data)
        assert answer.status_code == 403, data
    assert client.get("/").status_code == 200
    assert client.post("/logout", data=csrf_of(client)).status_code == 303
    assert client.get("/").status_code == 303


def test_forms_token_of_another_session_is_refused(app: Starlette, client: TestClient) -> None:
    other = log_in(app)
    assert csrf_of(other) != csrf_of(client)
    assert client.post("/logout", data=csrf_of(other)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "null"},
    ],
)
def test_post_from_a_foreign_origin_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.post("/logout", data=csrf_of(client), headers=headers)
    assert answer.status_code == 403
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": HERE}, {"sec-fetch-site": "same-origin", "origin": "null"}, {}]
)
def test_post_of_our_own_page_is_let_in(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/logout", data=csrf_of(client), headers=headers).status_code == 303


def test_other_sites_may_link_to_a_page_and_nothing_else(client: TestClient) -> None:
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    assert client.get("/", headers=link).status_code == 200
    for other in (
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ):
        assert client.get("/api/runs", headers=other).status_code == 403, other


@pytest.mark.parametrize(
    "path",
    [
        "/runs/..%2f..%2fetc%2fpasswd",
        "/runs/%2e%2e/%2e%2e/etc/passwd",
        "/runs/..%5c..%5cetc",
        "/runs/%252e%252e%252f",
        "/runs//etc/passwd",
        "/runs/x%00",
        "/runs/%0a",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/models/..%2fetc/1",
    ],
)
def test_path_that_points_elsewhere_never_reaches_a_handler(client: TestClient, path: str) -> None:
    # httpx normalises paths: send what an attacker would
    answer = client.request("GET", HERE, extensions={"target": path.encode()})
    raw = _raw(client, path)
    assert raw == 400
    assert answer.status_code in (200, 400)


def _raw(client: TestClient, path: str) -> int:
    """The status of a request whose path is sent as it is written."""
    import asyncio
    from urllib.parse import unquote

    sessions = client.app.state.sessions  # type: ignore[attr-defined]
    cookie = f"{sessions.cookie_name}={client.cookies[sessions.cookie_name]}"
    status: list[int] = []

    async def ask() -> None:
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"host", b"127.0.0.1:8080"), (b"cookie", cookie.encode())],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080), "state": {},
        }  # fmt: skip

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                status.append(int(str(message["status"])))

        await client.app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    return status[0]


@pytest.mark.parametrize("name", ["-x", ".git", "a" * 300, "x~y", "a%20;b"])
def test_names_that_no_recipe_can_have_are_not_found(client: TestClient, name: str) -> None:
    for path in (f"/models/{name}", f"/runs/{name}"):
        assert client.get(path).status_code == 404, path


def test_large_bodies_other_types_and_other_methods_are_refused(client: TestClient) -> None:
    fields = csrf_of(client)
    assert client.post("/logout", data={**fields, "why": "x" * MAX_BODY_BYTES}).status_code == 413
    files = {"why": ("x.txt", b"x")}
    assert client.post("/logout", data=fields, files=files).status_code == 415
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert client.request(method, "/").status_code == 405, method


def test_every_answer_carries_the_headers(client: TestClient, anonymous: TestClient) -> None:
    answers = [
        client.get(path) for path in ("/", "/runs", "/nothing", "/api/runs", "/static/app.css")
    ]
    answers += [
        anonymous.get("/"),
        anonymous.get("/login"),
        anonymous.get("/", headers={"host": "evil"}),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert client.get("/").headers["cache-control"] == "no-store"


def test_short_token_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="has 5 characters"):
        Settings(root=str(root), token="short")
