"""What all tests share: no telemetry, no network, a real S3 server on demand."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_server import api, prefect_server

__all__ = ["api", "prefect_server"]  # fixtures for all

os.environ |= {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
for name in (
    "MLFLOW_TRACKING_URI",
    "MM_CORPUS",
    "MM_ROOT",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_API_URL",
    "RAY_ADDRESS",
):
    os.environ.pop(name, None)


ONE_AFTER_THE_OTHER = (
    "cli",
    "end_to_end",
    "executors",
    "faults",
    "operate",
    "pipelines",
    "telemetry",
)
"""Folders whose tests start servers and clusters, and wait for them: one of those at a time."""


@pytest.hookimpl(tryfirst=True)  # before the plugin that hands the tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what `make test` may do at the same time: files, but for those."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent)
        is_alone = file.parts[0] in ONE_AFTER_THE_OTHER
        item.add_marker(pytest.mark.xdist_group("services" if is_alone else str(file)))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SeaweedFS server on loopback; yields its endpoint, with credentials in the environment."""
    directory = tmp_path_factory.mktemp("s3")
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": "devkey", "secretKey": "devsecret"}]
    identity = {"name": "dev", "credentials": credentials, "actions": actions}
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
    grpc = {f"{name}.grpc": _free_port() for name in ports}
    command = [
        str(Path(sys.executable).parent / "weed"),
        f"-logdir={directory}",
        "server",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={directory / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name.replace('.grpc', '.port.grpc')}={port}" for name, port in grpc.items()),
    ]
    environment = os.environ | {"GOMEMLIMIT": "300MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with (directory / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "devkey",
        "AWS_SECRET_ACCESS_KEY": "devsecret",
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    _forget_decoders()
    try:
        _wait_until_usable(process, directory / "weed.log")
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _forget_decoders() -> None:
    """End decoder processes that wait for work: they have the environment of their start."""
    from mmcore.core.decoder import close_idle  # numpy reads the environment that is set above

    close_idle()


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest) -> str:
    """An empty prefix of a bucket: `s3://tests/<test name>`."""
    return f"s3://tests/{request.node.name[:60].replace('[', '-').rstrip(']')}"


def _wait_until_usable(process: subprocess.Popen[bytes], log: Path) -> None:
    import s3fs

    deadline = time.monotonic() + 60
    while True:
        try:
            filesystem = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            if not filesystem.exists("tests"):
                filesystem.mkdir("tests")
            filesystem.pipe_file("tests/ready", b"1")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the S3 server did not start:\n{log.read_text()[-2000:]}"
                ) from None
            time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
