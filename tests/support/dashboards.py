"""What tests of the dashboard say to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.core.run_log import RunLog
from mmcore.dashboard.index.runs import RunIndex

TOKEN = "correct-horse-battery-staple"
HERE = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Opened:
    """A browser's page on a running dashboard."""

    page: Page
    base: str
    app: Starlette
    problems: list[str]
    """What the browser complained of: the console's errors, and what the CSP refused."""

    def goto(self, path: str) -> None:
        """Open a path of the dashboard, and wait until its scripts have run."""
        self.page.goto(self.base + path)
        if not path.endswith("/report"):
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the scripts of the page have run."""
        # not wait_for_function, which evaluates text: the page's policy forbids it
        self.page.locator("html[data-ready]").wait_for(state="attached")


def log_in(app: Starlette) -> TestClient:
    """Return a client that has logged in, as a browser does; redirects are not followed."""
    client = TestClient(app, base_url=HERE, follow_redirects=False)
    assert client.get("/login", params={"token": TOKEN}).status_code == 303
    return client


def csrf_of(client: TestClient) -> dict[str, str]:
    """The field that a form of this client's session carries."""
    sessions = client.app.state.sessions  # type: ignore[attr-defined]
    return {"csrf_token": sessions.csrf_token(client.cookies[sessions.cookie_name])}


def a_run(root: Path, **changes: Any) -> RunLog:
    """A run of this very process, which lives while the test does."""
    plain = {
        "recipe": "recipes/stamps.yaml",
        "name": "stamps",
        "executor": "local",
        "num_workers": 4,
    }
    return RunLog(str(root), **{**plain, **changes})


def index_of(app: Starlette) -> RunIndex:
    index: RunIndex = app.state.runs
    index.sync()
    return index
