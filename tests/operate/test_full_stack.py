"""All services, for real and once: who listens where, who is let in, where the secret is, the end."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import processes as observed
import psutil
import pytest
from processes import wait_until

from mmcore.core.process import status_of
from mmcore.operate import ports
from mmcore.operate.connection import connect, read_token, running_services
from mmcore.operate.processes import Processes, alive, descendants
from mmcore.telemetry.prefect import PrefectApi, PrefectError

NAMES = ["prefect", "ray", "mlflow", "worker", "watch", "dashboard"]
SECONDS = 120.0
EVIL = "http://evil.example"
METHODS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ReporterService/GetTraceback",
)
FLOW = """
import os
from prefect import flow

@flow
def reach_ray() -> int:
    import ray
    ray.init(log_to_driver=False)
    assert ray.get(ray.remote(lambda: os.getcwd()).remote())
    return 1
"""


@dataclass(frozen=True)
class Stack:
    root: str
    token: str
    ports: dict[str, int]
    said: str
    everybody: Processes

    def ask(
        self, port: str, path: str, *, secret: str = "", method: str = "GET", **headers: str
    ) -> int:
        """Ask with a secret, as a browser's login and as a token; return the status."""
        if secret:
            login = base64.b64encode(f"mm:{secret}".encode()).decode()
            bearer = port in ("dashboard", "ray-agent")
            headers["Authorization"] = f"Bearer {secret}" if bearer else f"Basic {login}"
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=60)
        try:
            body = "{}" if method == "POST" else None
            connection.request(
                method, path, body=body, headers={"Content-Type": "application/json", **headers}
            )
            return connection.getresponse().status
        finally:
            connection.close()


def _mm(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MM_ROOT"}
    return subprocess.run(
        [sys.executable, "-m", "mmcore", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = str(tmp_path_factory.mktemp("stack") / "root")
    base = ports.free_base()
    assert base is not None
    up = _mm("up", "--root", root, "--port-base", str(base))
    try:
        assert up.returncode == 0, up.stderr
        state = running_services(root)
        assert state is not None
        supervisor = status_of(state["supervisor"]["pid"])
        assert supervisor is not None
        token = read_token(root)
        assert token is not None
        yield Stack(
            root=root,
            token=token,
            ports=ports.assign(base),
            said=up.stdout + up.stderr,
            everybody=descendants([supervisor.parent]),
        )
    finally:
        _mm("down", "--root", root)


def test_up_ends_when_all_are_well_and_says_the_one_page_to_open(stack: Stack) -> None:
    status = json.loads(_mm("status", "--root", stack.root, "--json").stdout)
    assert {one["name"]: one["state"] for one in status["services"]} == dict.fromkeys(
        NAMES, "healthy"
    )
    page = f"http://127.0.0.1:{stack.ports['dashboard']}/login?token={stack.token}"
    assert stack.said.count(page) == 1
    assert stack.ask("dashboard", page.split(str(stack.ports["dashboard"]))[1]) in (302, 303)


def test_a_second_up_changes_nothing_and_says_so(stack: Stack) -> None:
    before = running_services(stack.root)
    again = _mm("up", "--root", stack.root)
    assert again.returncode == 4
    assert "nothing to do" in again.stderr
    assert running_services(stack.root) == before


def test_nothing_listens_but_on_loopback(stack: Stack) -> None:
    listening = _listening(stack)
    assert len(listening) >= 6
    assert {address for address, _ in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert {port for _, port in listening} >= set(stack.ports.values())


def _listening(stack: Stack) -> set[tuple[str, int]]:
    pids = alive(stack.everybody)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid in pids
    }


@pytest.mark.parametrize(
    ("port", "path", "welcome"),
    [
        ("prefect", "/api/admin/version", 200),
        ("prefect", "/api/admin/settings", 200),
        ("mlflow", "/", 200),
        ("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1", 200),
        ("mlflow", "/get-artifact?path=x&run_id=x", 404),
        ("dashboard", "/api/runs", None),
        ("ray-agent", "/nodes", 404),
    ],
)
def test_a_port_refuses_who_has_no_token_or_a_wrong_one(
    stack: Stack, port: str, path: str, welcome: int | None
) -> None:
    refusals = (401, 403)
    assert stack.ask(port, path) in refusals
    assert stack.ask(port, path, secret="0" * 64) in refusals
    allowed = stack.ask(port, path, secret=stack.token)
    assert allowed not in refusals
    assert welcome is None or allowed == welcome


def test_every_other_port_of_ray_refuses_who_has_no_token_or_a_wrong_one(stack: Stack) -> None:
    of_http = {stack.ports[name] for name in ("prefect", "mlflow", "dashboard", "ray-agent")}
    refusing = 0
    for _, port in _listening(stack):
        if port in of_http:
            continue
        answers = [_call(port, method, secret) for secret in ("", "0" * 64) for method in METHODS]
        assert grpc.StatusCode.OK not in answers
        refusing += answers.count(grpc.StatusCode.UNAUTHENTICATED) == 2
    assert refusing == 5  # head, raylet, its object manager, its agent, the server of Ray's client
    assert _call(stack.ports["ray"], METHODS[0], stack.token) is grpc.StatusCode.OK


def _call(port: int, method: str, secret: str) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {secret}"),) if secret else ()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


def test_what_is_neither_http_nor_ray_hangs_up_on_strangers(stack: Stack) -> None:
    """The worker listens for its own flows, each with a secret of its own."""
    worker = running_services(stack.root)["services"]["worker"]["pid"]  # type: ignore[index]
    mine = [
        connection.laddr.port
        for connection in psutil.Process(worker).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    for port in mine:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
            stranger.sendall(b"0" * 32 + b"\n")
            assert stranger.recv(100) == b""


def test_a_foreign_page_can_neither_read_nor_change_anything(stack: Stack) -> None:
    for port, path in (
        ("prefect", "/api/flows/filter"),
        ("mlflow", "/api/2.0/mlflow/experiments/search"),
    ):
        preflight = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
        assert stack.ask(port, path, method="OPTIONS", **preflight) in (400, 401, 403)
        refused = stack.ask(port, path, method="POST", secret=stack.token, Origin=EVIL)
        assert refused == 403
    # a forged form: the browser adds the login by itself, and knows no token against forgery
    assert stack.ask("prefect", "/api/flows/", method="POST", secret=stack.token) == 403
    assert stack.ask("mlflow", "/", secret=stack.token, Host="evil.example") == 403


def test_the_secret_is_on_no_command_line_in_no_log_and_in_no_file_but_its_own(
    stack: Stack,
) -> None:
    for pid in stack.everybody:
        assert stack.token not in observed.command_of(pid)
    holders = [
        path
        for path in Path(stack.root).rglob("*")
        if path.is_file() and not path.is_socket() and stack.token.encode() in path.read_bytes()
    ]
    assert holders == [Path(stack.root, "services", "token")]
    assert (holders[0].stat().st_mode & 0o777, holders[0].parent.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )


def test_a_flow_of_the_worker_reaches_ray_and_its_command_line_holds_no_secret(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "reach.py").write_text(FLOW)
    there = connect(stack.root)
    assert there.prefect_url is not None
    with PrefectApi(there.prefect_url, there.prefect_auth) as prefect:
        run_id = _start_flow(prefect, tmp_path)
        seen: set[str] = set()

        def has_ended() -> bool:
            seen.update(map(observed.command_of, observed.children(_supervisor(stack))))
            return prefect.flow_run(run_id).has_ended

        wait_until(has_ended, seconds=SECONDS, what="the flow has ended")
        assert prefect.flow_run(run_id).state_type == "COMPLETED", prefect.flow_run(run_id).message
    assert not any(stack.token in command for command in seen)


def _start_flow(prefect: PrefectApi, directory: Path) -> str:
    flow = prefect._ask("POST", "/flows/", {"name": "reach-ray"})
    deployment = {
        "name": "test",
        "flow_id": flow["id"],
        "work_pool_name": "mm",
        "path": str(directory),
        "entrypoint": "reach.py:reach_ray",
    }
    made = prefect._ask("POST", "/deployments/", deployment)
    run: dict[str, Any] = prefect._ask("POST", f"/deployments/{made['id']}/create_flow_run", {})
    return str(run["id"])


def _supervisor(stack: Stack) -> int:
    state = running_services(stack.root)
    assert state is not None
    pid: int = state["supervisor"]["pid"]
    return pid


def test_a_head_of_ray_that_is_killed_comes_back_whole(stack: Stack) -> None:
    def ray() -> dict[str, Any]:
        state = running_services(stack.root)
        assert state is not None
        found: dict[str, Any] = state["services"]["ray"]
        return found

    (head,) = [pid for pid in stack.everybody if "gcs_server" in observed.command_of(pid)]
    os.kill(head, signal.SIGKILL)
    wait_until(
        lambda: ray()["restarts"] == 1 and ray()["state"] == "healthy",
        seconds=SECONDS,
        what="Ray is well again",
    )
    assert _call(stack.ports["ray"], METHODS[0], stack.token) is grpc.StatusCode.OK


def test_down_leaves_no_process_and_no_port(stack: Stack) -> None:
    everybody = descendants([_supervisor(stack)]) | stack.everybody
    down = _mm("down", "--root", stack.root)
    assert down.returncode == 0
    assert "none is left" in down.stderr
    assert alive(everybody) == {}
    assert all(ports.is_free(port) for port in stack.ports.values())
    assert connect(stack.root).prefect_url is None
    with (
        pytest.raises(PrefectError),
        PrefectApi(f"http://127.0.0.1:{stack.ports['prefect']}/api") as gone,
    ):
        gone.version()
    assert _mm("down", "--root", stack.root).returncode == 4
    assert not any(
        Path(link).resolve().is_relative_to(stack.root) for link in Path("/tmp").glob("mm-ray-*")
    )
