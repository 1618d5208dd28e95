"""From deployment files to Prefect's file: the committed one is what is made of the files."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mmcore.operate.deployments import Deployment, DeploymentConfig, load_deployments
from mmcore.operate.prefect_yaml import ENTRYPOINTS, flow_name, render, to_yaml

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> list[Deployment]:
    monkeypatch.chdir(REPOSITORY)
    return load_deployments()


def deployment(**fields: object) -> Deployment:
    config = DeploymentConfig.model_validate({"name": "texts", "recipe": "texts.yaml", **fields})
    return Deployment(file="d.yaml", config=config, dataset="data", source="in")


def test_the_committed_file_is_what_is_made_of_the_deployment_files(
    ours: list[Deployment],
) -> None:
    committed = (REPOSITORY / "prefect.yaml").read_text()
    assert committed == to_yaml(render(ours)), "run: mm deploy --print > prefect.yaml"


def test_the_file_is_one_that_prefect_understands(ours: list[Deployment]) -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    content = YAML(typ="safe", pure=True).load(REPOSITORY / "prefect.yaml")
    model = PrefectYamlModel.model_validate(content)
    assert len(model.deployments) == 3 * len(ours)


def test_each_entrypoint_is_a_flow_that_takes_the_parameters_and_has_the_name(
    ours: list[Deployment],
) -> None:
    from prefect.flows import load_flow_from_entrypoint

    for row in render(ours)["deployments"]:
        flow = load_flow_from_entrypoint(row["entrypoint"])
        assert flow.name == flow_name(row)
        flow.validate_parameters(row["parameters"])
    trigger = render(ours)["deployments"][0]["triggers"][0]
    retrain = load_flow_from_entrypoint(ENTRYPOINTS["retrain"])
    assert trigger["parameters"].keys() <= retrain.parameters.properties.keys()


def test_a_schedule_goes_to_its_flow_with_slug_and_time_zone() -> None:
    schedules = [
        {"slug": "nightly", "flow": "retrain", "cron": "0 3 * * *", "timezone": "Europe/Oslo"},
        {"slug": "hourly", "flow": "prepare-data", "interval_seconds": 3600, "active": False},
    ]
    rows = {flow_name(row): row for row in render([deployment(schedules=schedules)])["deployments"]}
    assert rows["end-to-end"]["schedules"] == []
    assert rows["retrain"]["schedules"] == [
        {"slug": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Oslo", "active": True}
    ]
    assert rows["prepare-data"]["schedules"] == [
        {"slug": "hourly", "interval": 3600.0, "timezone": "UTC", "active": False}
    ]


def test_no_alert_url_gets_into_the_file() -> None:
    secret = {"to": ["slack://tokenA/tokenB/tokenC"]}
    assert "token" not in to_yaml(render([deployment(alerts=secret)], root="/root"))


def test_the_version_follows_from_all_that_prefect_is_told_and_nothing_else() -> None:
    def versions(**fields: object) -> list[str]:
        return [row["version"] for row in render([deployment(**fields)])["deployments"]]

    assert versions() == versions(alerts={"to": ["json://h"]}, timeout_seconds=5)
    for changed in ({"workers": 7}, {"overrides": ["seed=1"]}, {"concurrency": {"limit": 2}}):
        assert not set(versions()) & set(versions(**changed))
    assert set(versions()) & set(versions(watch={"debounce_seconds": 1})) == set(versions()[1:])
