"""Where services are: what `mm up` wrote, unless the environment names others."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mmcore.core.process import Process
from mmcore.errors import StorageError
from mmcore.operate.connection import connect, read_token, running_services
from mmcore.operate.tokens import ensure_token

SERVICES = {
    "prefect": {"url": "http://127.0.0.1:7601", "api_url": "http://127.0.0.1:7601/api"},
    "ray": {"address": "127.0.0.1:7603"},
    "mlflow": {"url": "http://127.0.0.1:7602"},
    "dashboard": {"url": "http://127.0.0.1:7600"},
}


@pytest.fixture(autouse=True)
def _no_servers_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING",
        "RAY_ADDRESS",
        "RAY_AUTH_TOKEN_PATH",
    ):
        monkeypatch.delenv(name, raising=False)


def _write(root: Path, supervisor: Process) -> None:
    ensure_token(str(root))
    state = {"format": "mm.services", "format_version": 1, "supervisor": asdict(supervisor)}
    (root / "services" / "services.json").write_text(json.dumps(state | {"services": SERVICES}))


def test_what_runs_is_found_with_its_secrets(tmp_path: Path) -> None:
    _write(tmp_path, Process.current())
    there = connect(str(tmp_path))
    token = read_token(str(tmp_path))
    assert there.prefect_url == "http://127.0.0.1:7601/api"
    assert there.prefect_auth == f"mm:{token}"
    assert there.ray_address == "127.0.0.1:7603"
    assert there.ray_token_file == str(tmp_path / "services" / "token")
    assert there.mlflow_url == "http://127.0.0.1:7602"
    assert there.dashboard_url == "http://127.0.0.1:7600"
    assert there.token == token
    assert str(token) not in repr(there)


@pytest.mark.parametrize("changed", [{"started": 1}, {"machine": "another/boot"}])
def test_services_of_a_dead_supervisor_are_not_there_though_its_number_is_used_again(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    _write(tmp_path, replace(Process.current(), **changed))  # type: ignore[arg-type]
    assert running_services(str(tmp_path)) is None
    assert connect(str(tmp_path)).prefect_url is None
    assert connect(str(tmp_path)).ray_token_file is None


def test_the_environment_wins_and_our_secret_is_not_sent_to_the_server_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, Process.current())
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    there = connect(str(tmp_path))
    assert (there.prefect_url, there.prefect_auth) == ("https://prefect.example/api", None)
    assert (there.ray_address, there.ray_token_file) == ("10.0.0.1:6379", None)
    assert there.mlflow_url == "https://mlflow.example"
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "them:theirs")
    assert connect(str(tmp_path)).prefect_auth == "them:theirs"


def test_where_nothing_was_started_there_is_nothing(tmp_path: Path) -> None:
    there = connect(str(tmp_path))
    assert (there.prefect_url, there.ray_address, there.dashboard_url, there.token) == (None,) * 4
    assert connect("s3://bucket/prefix").prefect_url is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "damaged"), ('{"format": "mm.services", "format_version": 2}', "version 2")],
)
def test_a_record_that_cannot_be_read_is_an_error_with_a_way_out(
    tmp_path: Path, text: str, said: str
) -> None:
    ensure_token(str(tmp_path))
    (tmp_path / "services" / "services.json").write_text(text)
    with pytest.raises(StorageError, match=said):
        connect(str(tmp_path))
