"""Serves the dashboard of one root until a signal comes."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from mmcore import storage
from mmcore.dashboard.app import create_app
from mmcore.dashboard.settings import Settings
from mmcore.errors import ConfigError
from mmcore.operate.connection import connect
from mmcore.operate.tokens import ensure_token
from mmcore.telemetry.prefect import PrefectApi

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PREFECT_SECONDS = 5.0
"""How long Prefect may take to answer before a page says that it does not."""
_GOODBYE_SECONDS = 2
_BACKLOG = 128


def serve(
    root: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    token_file: str = "",
    allowed_hosts: Sequence[str] = (),
    on_start: Callable[[str, Settings], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `on_start` hears the address once it can be opened."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = make_settings(root, token_file=token_file, allowed_hosts=allowed_hosts)
    if host not in LOOPBACK and not allowed_hosts:
        raise ConfigError(
            f"--host {host} is reachable from other machines. Say by which names it may be asked "
            "for, with --allow-host NAME, and put TLS in front of it."
        )
    listening = _listen(host, port)
    app = create_app(settings)
    # access logs would hold the token of a login link
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        # no proxy is trusted to say who the client is
        proxy_headers=False,
    )
    server = _Server(config, app)
    if on_start is not None:
        shown = f"[{host}]" if ":" in host else host
        on_start(f"http://{shown}:{listening.getsockname()[1]}/", settings)
    server.run(sockets=[listening])


def make_settings(
    root: str, *, token_file: str = "", allowed_hosts: Sequence[str] = ()
) -> Settings:
    """Return what the dashboard of a root needs to know: its token, its Prefect server."""
    root = os.path.abspath(root) if storage.is_local(root) else root.rstrip("/")
    connection = connect(root)
    prefect = None
    if connection.prefect_url is not None:
        prefect = PrefectApi(
            connection.prefect_url, connection.prefect_auth, timeout_seconds=_PREFECT_SECONDS
        )
    return Settings(
        root=root,
        token=_token(root, token_file),
        prefect=prefect,
        allowed_hosts=tuple(allowed_hosts),
    )


def _token(root: str, token_file: str) -> str:
    if token_file:
        return storage.read(token_file).decode("ascii", "replace").strip()
    if not storage.is_local(root):
        raise ConfigError(
            f"{root} is no place for a secret. Write one into a file of this machine that only "
            "you can read, and name it with --token-file."
        )
    return ensure_token(root)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        # at once: until it listens, another process may bind the same port as well
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {host} port {port}: {error}. Choose another with --port, or 0 for "
            "any that is free."
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Tells pages that follow a run to let go before it waits for them."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.is_closing = True
        super().handle_exit(sig, frame)
        # the supervisor knows that it asked for the end: no second delivery of the signal
        self._captured_signals = [
            caught for caught in self._captured_signals if caught != signal.SIGTERM
        ]
