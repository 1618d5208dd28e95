"""Several hosts on one machine: network namespaces behind one bridge, a Ray node in each.

They share the file system, as hosts of a cluster share theirs, and nothing else that goes by an
address: what listens on a loopback is reached from its own host alone.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import processes
import pytest

_HEAD_PORT = 6379
_NODE = {"dashboard-agent-listen-port": 52365, "object-store-memory": 80 * 2**20}


@dataclass
class Hosts:
    """A head and its nodes, by number; 0 is the head."""

    names: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    num_cpus: int = 1
    """Of each host."""
    nodes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number + 1}"

    def start(
        self,
        number: int,
        command: Sequence[str],
        *,
        variables: Mapping[str, str] = {},
        **options: object,
    ) -> subprocess.Popen[bytes]:
        """Start a program on a host, whose address it finds in MM_TEST_HOST."""
        inside = ["ip", "netns", "exec", self.names[number], *command]
        environment = {
            **os.environ,
            **variables,
            **self.environment,
            "MM_TEST_HOST": self.address(number),
        }
        return subprocess.Popen(inside, env=environment, start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]

    def start_node(self, number: int) -> None:
        """Start the Ray node of a host, and wait until it belongs to the cluster."""
        options = _NODE | {"num-cpus": self.num_cpus, "node-ip-address": self.address(number)}
        if number == 0:
            options |= {
                "port": _HEAD_PORT,
                "include-dashboard": "false",
                "temp-dir": self.environment["RAY_TMPDIR"],
            }
        else:
            options |= {"address": self.environment["RAY_ADDRESS"]}
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--disable-usage-stats",
        ]
        command += ["--head", "--no-monitor"] if number == 0 else []
        log = self.directory / f"node-{number}.log"
        with log.open("wb") as file:
            started = self.start(
                number, [*command, *(f"--{name}={value}" for name, value in options.items())],
                stdout=file, stderr=file,
            )  # fmt: skip
        self.nodes[number] = started
        processes.wait_until(
            lambda: started.poll() is not None or b"Ray runtime started" in log.read_bytes(),
            seconds=90, what=f"the Ray node of host {number} is up",
        )  # fmt: skip
        assert started.poll() is None, log.read_text()

    def pids(self, number: int) -> set[int]:
        """Return every process of a host."""
        said = subprocess.run(
            ["ip", "netns", "pids", self.names[number]], capture_output=True, text=True, check=True
        )
        return {int(line) for line in said.stdout.split()}

    def kill(self, number: int) -> None:
        """End a host at once, as a power cut would."""
        self.unplug(number)
        processes.kill(self.pids(number))

    def unplug(self, number: int) -> None:
        """Pull the cable of a host."""
        _ip("-n", self.names[number], "link", "set", "eth0", "down")


@contextmanager
def ray_hosts(directory: Path, *, num_hosts: int, num_cpus: int = 1) -> Iterator[Hosts]:
    """Yield hosts whose Ray nodes are one cluster; skip where namespaces cannot be made."""
    mark = f"mm{os.getpid() % 100_000}"
    switch, names = f"{mark}sw", [f"{mark}h{number}" for number in range(num_hosts)]
    token = directory / "ray-token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_enable_metrics_collection": "0",
        # a host that is gone is told from a slow one in seconds, not in half a minute
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "8",
        # as docs/operate.md has it for clusters: nodes and drivers alike, or Ray takes the
        # questions of the one for an attack on the other
        "RAY_grpc_client_keepalive_time_ms": "5000",
        "RAY_grpc_client_keepalive_timeout_ms": "5000",
        # the nodes are all of this test; else their work waits for everybody else's
        "RAY_worker_niceness": "0",
        # and one that does not come back is given up soon
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "40",
        "RAY_ADDRESS": f"{Hosts.address(0)}:{_HEAD_PORT}",
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="mmray-", dir="/tmp"),  # sockets have short names
        "MM_TEST_HOSTS": mark,
    }
    hosts = Hosts(names, environment, directory, num_cpus)
    try:
        _connect(switch, names)
        for number in range(num_hosts):
            hosts.start_node(number)
        yield hosts
    finally:
        processes.kill(processes.with_text(f"MM_TEST_HOSTS={mark}"))
        for name in (*names, switch):
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


def _connect(switch: str, names: Sequence[str]) -> None:
    made = subprocess.run(["ip", "netns", "add", switch], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
    _ip("-n", switch, "link", "set", "bridge", "up")
    for number, name in enumerate(names):
        port = f"port{number}"
        _ip("netns", "add", name)
        _ip(
            "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name
        )
        _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", name, "address", "add", f"{Hosts.address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
