import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import Fakes, fake
from prefect_server import PrefectServer
from toy import write_corpus

from mmcore.errors import MmError
from mmcore.operate import lifecycle
from mmcore.operate.connection import Connection
from mmcore.operate.deploy import Changes, deploy
from mmcore.operate.deployments import load_deployments
from mmcore.operate.service import Service
from mmcore.operate.tokens import ensure_token


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """A root whose services are stopped when the test is over."""
    path = str(tmp_path / "root")
    ensure_token(path)
    yield path
    with contextlib.suppress(MmError):
        lifecycle.stop(path)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    """Make services whose directories are `tmp_path/NAME`; the last one may need others."""

    def make(*names: str, after: tuple[str, ...] = ()) -> list[Service]:
        last = names[-1]
        return [fake(name, tmp_path / name, after=after if name == last else ()) for name in names]

    return make


@pytest.fixture
def connection(tmp_path: Path, prefect_server: PrefectServer) -> Connection:
    return prefect_server.connection(tmp_path / "root")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Of the dataset and its deployments: each test has its own on the shared server."""
    return f"d{abs(hash(request.node.name)) % 10**8}"


@pytest.fixture
def project(
    tmp_path: Path,
    connection: Connection,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: PrefectServer,
) -> Callable[..., Changes]:
    """Deploy a project's one deployment file with some more lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", prefect_server.home)
    write_corpus(tmp_path / "corpus")
    (tmp_path / "texts.yaml").write_text(
        f"name: {name}\n"
        "source: {path: corpus, layout: {use: folder}}\n"
        "split: {together: [text]}\n"
    )

    def deploy_with(more: str = "", *, dry_run: bool = False) -> Changes:
        Path("d.yaml").write_text(
            f"name: {name}\nrecipe: texts.yaml\nexecutor: local\nwork_pool: tests\n{more}"
        )
        found = load_deployments(["d.yaml"])
        return deploy(connection, found, directory=str(tmp_path), dry_run=dry_run)

    return deploy_with
