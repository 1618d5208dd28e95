"""A Ray head that several runs share, on loopback, with a token: what `mm up` starts, for a test."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes

ACTORS_LEFT = """
import ray
from ray._private.state import actors
ray.init(logging_level="ERROR")
print(sorted(a["ActorClassName"] for a in actors().values() if a["State"] != "DEAD"))
print(sorted(g["state"] for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"))
whole, free = ray.cluster_resources(), ray.available_resources()
print(sorted(name for name in whole if name in ("CPU", "GPU") and free.get(name) != whole[name]))
"""


@contextmanager
def ray_head(directory: Path, *, num_cpus: int = 2) -> Iterator[dict[str, str]]:
    """Yield the environment in which Ray finds the head."""
    token = directory / "ray-token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    port = _free_port()
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_enable_metrics_collection": "0",
        "MM_TEST_RAY_HEAD": str(directory),
    }
    temporary = tempfile.mkdtemp(prefix="mmray-", dir="/tmp")  # sockets have short names
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = {
        "node-ip-address": "127.0.0.1",
        "port": port,
        "dashboard-agent-listen-port": _free_port(),
        "ray-client-server-port": _free_port(),
        "include-dashboard": "false",
        "num-cpus": num_cpus,
        "object-store-memory": 100 * 2**20,
        "temp-dir": temporary,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    log = directory / "ray-head.log"
    with log.open("wb") as file:
        head = subprocess.Popen(
            [*command, "--disable-usage-stats", "--no-monitor"],
            stdout=file, stderr=file, env=os.environ | environment, start_new_session=True,
        )  # fmt: skip
    try:
        processes.wait_until(
            lambda: head.poll() is not None or b"Ray runtime started" in log.read_bytes(),
            seconds=90,
            what="the Ray head is up",
        )
        assert head.poll() is None, log.read_text()
        yield environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        head.terminate()
        head.wait(timeout=60)
        processes.kill(processes.with_text(f"MM_TEST_RAY_HEAD={directory}"))
        shutil.rmtree(temporary, ignore_errors=True)


def what_is_left(environment: dict[str, str]) -> str:
    """Return which actors, placement groups and resources of a head are in use: `[] [] []`."""
    said = subprocess.run(
        [sys.executable, "-c", ACTORS_LEFT],
        env=os.environ | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return " ".join(said.stdout.split("\n")).strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
