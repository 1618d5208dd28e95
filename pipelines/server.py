"""A Prefect API for one run: the one that is configured, or a temporary server of its own.

Prefect would start a temporary server itself, but that one outlives a killed flow.
"""

import atexit
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import prefect
from prefect.settings import PREFECT_API_URL, temporary_settings

from mmcore.errors import StepError
from mmcore.executors.children import die_with_parent, free_port

_START_SECONDS = 180.0  # a first start migrates a database, on a busy machine
_SETTINGS = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


def ensure_api() -> None:
    """Make sure that this process has an API to talk to until it ends.

    A temporary server listens on loopback alone and dies with this process, however that ends.
    """
    if PREFECT_API_URL.value():
        return
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(prefect.__file__).parent)]
    command += ["--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    server = subprocess.Popen(command, env=os.environ | _SETTINGS, preexec_fn=die_with_parent)
    # first in, last out: Prefect sends its last logs when the interpreter ends
    atexit.register(_stop, server)
    url = f"http://127.0.0.1:{port}/api"
    _wait_until_healthy(server, url)
    settings = temporary_settings({PREFECT_API_URL: url})
    settings.__enter__()
    atexit.register(settings.__exit__, None, None, None)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_healthy(server: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    ended = f"ended with code {server.poll()}" if server.poll() is not None else "did not answer"
    raise StepError(
        f"the temporary Prefect server {ended} within {_START_SECONDS:.0f} s. Start one with "
        "`prefect server start` and set PREFECT_API_URL, or run without Prefect: mm run RECIPE."
    )
