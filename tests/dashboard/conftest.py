"""A dashboard over a real root: asked in this process, or by a real browser over a real socket."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from dashboards import HERE, TOKEN, Opened, log_in
from mlflow_store import empty_database
from playwright.sync_api import Browser, sync_playwright
from starlette.applications import Starlette
from starlette.testclient import TestClient

from mmcore.dashboard.app import create_app
from mmcore.dashboard.settings import Settings

__all__ = ["empty_database"]

_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIGNATURE = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 8, 8, 3]}],
    "outputs": [{"name": "logits.fused", "dtype": "float32", "shape": [-1, 3]}],
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root that nothing was ever done in."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


@pytest.fixture
def make_app() -> Iterator[Callable[..., Starlette]]:
    """Make the dashboard of a root; closed at the end."""
    made: list[Starlette] = []

    def make(root: Path, **changes: Any) -> Starlette:
        app = create_app(Settings(**{"root": str(root), "token": TOKEN, **changes}))
        made.append(app)
        return app

    yield make
    for app in made:
        for close in app.state.closing:
            close()
        app.state.database.close()


@pytest.fixture
def app(root: Path, make_app: Callable[..., Starlette]) -> Starlette:
    return make_app(root)


@pytest.fixture
def anonymous(app: Starlette) -> TestClient:
    """Somebody who has not logged in; redirects are not followed."""
    return TestClient(app, base_url=HERE, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def client(app: Starlette) -> TestClient:
    """Somebody who has logged in, as a browser does."""
    return log_in(app)


@pytest.fixture
def register(root: Path, tmp_path: Path, empty_database: Path) -> Callable[..., Any]:
    """Register a version of the model `stamps`, as the register step does."""
    from mmcore.register.ledger import crown
    from mmcore.telemetry.model_registry import ModelRegistry

    shutil.copy(empty_database, root / "mlflow.db")
    registry = ModelRegistry(str(root))
    files = tmp_path / "model"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"weights")

    def do(accuracy: float, *, is_champion: bool = True, card: str = "# card") -> Any:
        key = f"{accuracy:.6f}".replace(".", "").ljust(64, "0")
        version = registry.register(
            "stamps",
            run_key=key,
            source_directory=str(files),
            tags={
                "mm.dataset": "stamps/0123456789abcdef",
                "mm.train_fingerprint": key,
                "mm.metric.accuracy": repr(accuracy),
            },
            description=card,
            signature=SIGNATURE,
            metrics={"accuracy": accuracy},
        )
        if is_champion:
            why = f"accuracy {accuracy} is better"
            crown(
                registry, str(root), "stamps", version.version,
                kind="registered", why=why, by="register step",
            )  # fmt: skip
        return version

    return do


def chromium() -> str:
    """Debian's Chromium; installed by `make test` as root, else the test is skipped."""
    path = os.environ.get("MM_CHROMIUM") or shutil.which("chromium")
    if path is None and os.geteuid() == 0:
        script = Path(__file__).parents[2] / "infra" / "chromium.sh"
        subprocess.run([str(script)], check=False)
        path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in MM_CHROMIUM")
    return path


# not for the whole session: while it lives this thread has a running event loop, and no test of
# another module could start its own
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def serve(make_app: Callable[..., Starlette]) -> Iterator[Callable[[Starlette], str]]:
    """Serve an application on a free port of loopback; return its address."""
    running: list[tuple[uvicorn.Server, threading.Thread, Starlette]] = []

    def start(app: Starlette) -> str:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="error", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, app))
        deadline = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread, app in running:
        app.state.is_closing = True
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def browser_page(
    browser: Browser, serve: Callable[[Starlette], str], make_app: Callable[..., Starlette]
) -> Iterator[Callable[..., Opened]]:
    """Open the dashboard of a root in Chromium, logged in; `viewport=(390, 844)` is a phone.

    The page is `opened.page`. At the end nothing may have been complained of.
    """
    contexts, all_opened = [], []

    def opened(
        root: Path, *, viewport: tuple[int, int] = (1280, 900), dark: bool = False
    ) -> Opened:
        app = make_app(root)
        base = serve(app)
        context = browser.new_context(
            viewport={"width": viewport[0], "height": viewport[1]},
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        problems: list[str] = []
        page.on(
            "console",
            lambda said: problems.append(said.text) if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{base}/login?token={TOKEN}")
        made = Opened(page, base, app, problems)
        all_opened.append(made)
        return made

    yield opened
    for context in contexts:
        context.close()
    for made in all_opened:
        assert made.problems == []
