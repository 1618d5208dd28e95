"""What is started: with no secret on a command line, and nothing for which a server is named."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcore.errors import ConfigError
from mmcore.operate import ports
from mmcore.operate.orders import Pace, decode, encode
from mmcore.operate.services import (
    Settings,
    base_environment,
    local_services,
    remove_ray_link,
)

TOKEN = "0123456789abcdef" * 4
PASSWORD = "geheim-1234"


@pytest.fixture(autouse=True)
def _no_servers_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(
        root=str(tmp_path),
        token=TOKEN,
        ports=ports.assign(9000),
        database_url=f"postgresql+asyncpg://mm:{PASSWORD}@db/prefect",
    )
    remove_ray_link(str(tmp_path))


def test_no_command_line_and_no_printed_form_holds_a_secret(settings: Settings) -> None:
    services = local_services(settings)
    assert [one.name for one in services] == [
        "prefect",
        "ray",
        "mlflow",
        "worker",
        "watch",
        "dashboard",
    ]
    for one in services:
        for secret in (TOKEN, PASSWORD):
            assert secret not in " ".join(one.command) + repr(one) + repr(settings)


def test_the_password_of_the_database_reaches_the_server_of_prefect_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_DATABASE_URL", settings.database_url or "")
    knowing = [
        one.name for one in local_services(settings) if PASSWORD in str(dict(one.environment))
    ]
    assert knowing == ["prefect"]
    assert PASSWORD not in str(base_environment(settings.root))


@pytest.mark.parametrize(
    ("variable", "value", "left_out"),
    [
        ("PREFECT_API_URL", "https://prefect.example/api", "prefect"),
        ("RAY_ADDRESS", "10.0.0.1:6379", "ray"),
        ("MLFLOW_TRACKING_URI", "https://mlflow.example", "mlflow"),
    ],
)
def test_a_server_of_the_team_takes_the_place_of_ours_and_never_sees_our_token(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    left_out: str,
) -> None:
    monkeypatch.setenv(variable, value)
    services = {one.name: one for one in local_services(settings)}
    assert left_out not in services
    assert left_out not in services["worker"].after
    told = {**os.environ, **services["worker"].environment}
    assert told[variable] == value
    if left_out == "prefect":
        assert TOKEN not in str(dict(services["worker"].environment))
    if left_out == "ray":
        assert "RAY_AUTH_TOKEN_PATH" not in services["worker"].environment


def test_services_can_be_chosen_and_a_misspelt_one_is_refused(settings: Settings) -> None:
    chosen = local_services(settings, only=("worker", "prefect"))
    assert [one.name for one in chosen] == ["prefect", "worker"]
    assert chosen[1].after == ("prefect",)
    with pytest.raises(ConfigError, match="no service is named 'prefct'"):
        local_services(settings, only=("prefct",))


def test_what_would_lead_services_astray_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.setenv(name, "astray")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000")
    environment = base_environment("/root")
    assert "astray" not in environment.values()
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000"


def test_a_supervisor_understands_what_it_is_told(settings: Settings) -> None:
    services = local_services(settings)
    pace = Pace(check_seconds=1.0)
    assert decode(encode(settings.root, services, pace)) == (settings.root, services, pace)


def test_ray_is_given_a_short_name_for_its_directory_and_no_other_ones_link_is_followed(
    settings: Settings, tmp_path: Path
) -> None:
    (ray,) = local_services(settings, only=("ray",))
    (option,) = [word for word in ray.command if word.startswith("--temp-dir=")]
    link = Path(option.partition("=")[2])
    assert link.resolve() == tmp_path / "services" / "ray"
    assert len(str(link)) < 40  # a socket below it has room for 107 bytes in all
    link.unlink()
    link.symlink_to("/somewhere/else")
    with pytest.raises(ConfigError, match="in the way"):
        local_services(settings, only=("ray",))
