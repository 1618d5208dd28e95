"""A real Prefect server with a login and CSRF protection, for all tests that need one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmcore.executors.children import die_with_parent, free_port
from mmcore.operate.connection import Connection
from mmcore.telemetry.prefect import PrefectApi

AUTH = "mm:not-a-secret"


@dataclass(frozen=True)
class PrefectServer:
    url: str
    home: str

    def connection(self, root: object) -> Connection:
        return Connection(root=str(root), prefect_url=self.url, prefect_auth=AUTH)

    def environment(self) -> dict[str, str]:
        """For a process that is to talk to the server."""
        return {
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": AUTH,
            "PREFECT_HOME": self.home,
        }


def start_server(home: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a server whose database lies below `home`, and wait until it answers."""
    environment = os.environ | {
        "PREFECT_HOME": str(home / "server"),
        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    (home / "server").mkdir(exist_ok=True)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent
        )
    deadline = time.monotonic() + 180
    with PrefectApi(f"http://127.0.0.1:{port}/api", AUTH) as api:
        while not api.healthy():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError((home / "log").read_text()[-3000:])
            time.sleep(0.5)  # between two looks
    return process


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    process = start_server(home, port)
    server = PrefectServer(f"http://127.0.0.1:{port}/api", str(home / "client"))
    os.mkdir(server.home)
    try:
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def api(prefect_server: PrefectServer) -> Iterator[PrefectApi]:
    with PrefectApi(prefect_server.url, AUTH) as opened:
        yield opened
