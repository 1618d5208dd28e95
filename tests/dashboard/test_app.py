import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from dashboards import TOKEN, Opened, log_in
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.dashboard import templating
from mmcore.dashboard.static_files import STATIC

PAGES = ("/", "/runs", "/models", "/login", "/nothing")
TEMPLATES = sorted(templating.TEMPLATES.glob("*.html"))


def test_every_page_of_an_empty_root_says_what_to_do(client: TestClient) -> None:
    assert "This root is new" in client.get("/").text
    assert "No run yet" in client.get("/runs").text
    assert "mm run " in client.get("/runs").text


def test_health_asks_for_no_login_and_says_nothing(anonymous: TestClient) -> None:
    answer = anonymous.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_what_is_not_there_is_a_page_and_below_api_it_is_json(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert answer.status_code == 404
    assert "There is nothing here" in answer.text
    answer = client.get("/api/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_fault_of_the_dashboard_shows_no_traceback(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = log_in(app)
    client = TestClient(
        app, base_url="http://127.0.0.1:8080", cookies=client.cookies, raise_server_exceptions=False
    )
    monkeypatch.setattr(app.state.runs, "page", lambda **_: 1 / 0)
    answer = client.get("/runs")
    assert answer.status_code == 500
    assert "The dashboard failed" in answer.text
    assert "ZeroDivisionError" not in answer.text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_template_has_nothing_inline_and_nothing_from_outside(template: Path) -> None:
    text = template.read_text()
    without_comments = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    assert not re.search(r"<script(?![^>]*\bsrc=)", without_comments)
    assert "<style" not in without_comments
    assert not re.search(r"\sstyle=", without_comments)
    assert not re.search(r"\son[a-z]+=|hx-on", without_comments)
    assert not re.search(r"(src|href|action)=[\"']?(https?:)?//", without_comments)
    assert "|safe" not in without_comments.replace(" ", "")
    assert "autoescape" not in without_comments


def test_static_files_change_their_address_with_their_content(client: TestClient) -> None:
    page = client.get("/").text
    address = re.search(r'href="(/static/bundle\.css\?v=[0-9a-f]{12})"', page)
    assert address is not None
    answer = client.get(address[1])
    assert "immutable" in answer.headers["cache-control"]
    assert (STATIC / "app.css").read_text() in answer.text
    assert client.get("/static/app.css?v=old").headers["cache-control"] == "no-cache"
    assert client.get("/static/nothing.css").status_code == 404


def test_vendored_files_are_the_published_ones() -> None:
    import hashlib

    text = (STATIC / "vendor" / "README.md").read_text()
    for name in ("htmx.min.js", "uplot.min.js", "uplot.min.css"):
        digest = hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest()
        assert digest in text, name
    for name in ("htmx.LICENSE", "uplot.LICENSE"):
        assert (STATIC / "vendor" / name).stat().st_size > 500


def test_index_that_is_torn_or_gone_is_built_again(
    root: Path, make_app: Callable[..., Starlette]
) -> None:
    path = Path(make_app(root).state.database.path)
    assert path == root / "state" / "dashboard.sqlite"
    for damage in (b"not a database at all" * 100, None):
        for file in path.parent.glob("dashboard.sqlite*"):
            file.unlink()
        if damage:
            path.write_bytes(damage)
        assert log_in(make_app(root)).get("/runs").status_code == 200
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


@pytest.mark.parametrize("viewport", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_their_window_and_break_no_policy(
    root: Path, browser_page: Callable[..., Opened], viewport: tuple[int, int], dark: bool
) -> None:
    opened = browser_page(root, viewport=viewport, dark=dark)
    for path in ("/", "/runs", "/models"):
        opened.goto(path)
        width = opened.page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport[0], path
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(17, 18, 20)") == dark


def test_theme_that_is_chosen_stays(root: Path, browser_page: Callable[..., Opened]) -> None:
    opened = browser_page(root)
    page = opened.page
    opened.goto("/runs")
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    opened.goto("/")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 18, 20)"


def test_everything_is_reached_by_keys(root: Path, browser_page: Callable[..., Opened]) -> None:
    opened = browser_page(root)
    page = opened.page
    opened.goto("/")
    opened.wait_until_ready()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url(f"{opened.base}/runs")
    opened.wait_until_ready()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_url(f"{opened.base}/models")


def test_login_by_form_leads_where_one_wanted_to_go(
    root: Path, browser_page: Callable[..., Opened]
) -> None:
    opened = browser_page(root)
    page = opened.page
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{opened.base}/login")
    opened.goto("/runs?status=failed")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("not the token").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{opened.base}/runs?status=failed")
    opened.problems[:] = [said for said in opened.problems if "401" not in said]


def test_first_paint_takes_two_requests_and_few_bytes(
    root: Path, browser_page: Callable[..., Opened]
) -> None:
    opened = browser_page(root)
    for path in PAGES[:3]:
        opened.goto(path)
        opened.page.screenshot()  # painted
        paints = "performance.getEntriesByName('first-contentful-paint').length"
        assert opened.page.evaluate(paints) == 1
        blocking = opened.page.evaluate(
            "performance.getEntriesByType('resource')"
            ".filter(e => e.renderBlockingStatus === 'blocking').map(e => e.name)"
        )
        assert len(blocking) == 1, path
        html = len(opened.page.content().encode())
        css = sum(path.stat().st_size for path in STATIC.glob("*.css"))
        assert html + css < 150_000
