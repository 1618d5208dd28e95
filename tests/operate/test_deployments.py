"""Deployment files: what they may say, and what is said of one that is wrong."""

import os
import shutil
from pathlib import Path

import pytest

from mmcore.errors import ConfigError
from mmcore.operate.deployed import Deployed, find_deployed, list_deployed, remember_deployed
from mmcore.operate.deployments import (
    Deployment,
    DeploymentConfig,
    fill_in,
    load_deployment,
    load_deployment_config,
    load_deployments,
)

REPOSITORY = Path(__file__).parents[2]


def write(directory: Path, more: str = "", *, name: str = "texts") -> str:
    recipe = REPOSITORY / "configs/recipes/generated_data.yaml"
    (directory / f"{name}.yaml").write_text(f"name: {name}\nrecipe: {recipe}\n{more}")
    return str(directory / f"{name}.yaml")


def test_a_file_with_a_recipe_alone_is_a_deployment_with_one_run_at_a_time(tmp_path: Path) -> None:
    deployment = load_deployment(write(tmp_path))
    assert deployment.dataset == "generated"
    assert deployment.config.concurrency.limit == 1
    assert deployment.config.concurrency.collision == "enqueue"
    assert deployment.watched is None


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("skedules: []", 3, "Did you mean 'schedules'?"),
        ("watch: {setle_seconds: 2}", 3, "Did you mean 'settle_seconds'?"),
        ("executor: rey", 3, "'ray' or 'local'"),
        ("schedules: [{slug: x, cron: '0 3 * *'}]", 3, "five fields"),
        ("schedules: [{slug: x, cron: '0 3 * * *', timezone: Oslo}]", 3, "Europe/Oslo"),
        ("schedules:\n  - {slug: x}", 4, "either cron: or interval_seconds:"),
        ("schedules: [{slug: X y, interval_seconds: 60}]", 3, "slug"),
        ("schedules: [{slug: x, interval_seconds: 1}]", 3, "interval_seconds"),
        ("timeout_seconds: 0", 3, "timeout_seconds"),
        ("alerts: {on: [exploded]}", 3, "'failed'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, more: str, line: int, said: str
) -> None:
    file = write(tmp_path, more)
    with pytest.raises(ConfigError) as wrong:
        load_deployment_config(file)
    assert f"{file}:{line}:" in str(wrong.value)
    assert said in str(wrong.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "schedules: [{slug: x, interval_seconds: 60}, {slug: x, cron: '* * * * *'}]",
            "3.*slug: another schedule of retrain is called so",
        ),
        (
            "flows: [prepare-data]\nschedules: [{slug: x, interval_seconds: 60}]",
            "retrain is not among the flows",
        ),
        ("flows: [prepare-data]\nwatch: {}", "retrain, which is not among the flows"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_deployment_config(write(tmp_path, more))


def test_a_mistake_in_the_recipe_is_found_before_anything_is_deployed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'source'"):
        load_deployment(write(tmp_path, "overrides: [sorce.path=x]"))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path)
    second = shutil.copy(first, tmp_path / "copy.yaml")
    with pytest.raises(ConfigError, match="both called 'texts'"):
        load_deployments([first, str(second)])


def test_a_directory_without_deployments_says_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="configs/deployments"):
        load_deployments()


def test_alert_urls_come_from_the_environment_and_empty_ones_tell_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, 'alerts: {to: ["${env:MM_TEST_ALERT:-}", "json://h"]}')
    monkeypatch.delenv("MM_TEST_ALERT", raising=False)
    assert load_deployment_config(file).alerts.to == ("json://h",)
    monkeypatch.setenv("MM_TEST_ALERT", "slack://secret")
    assert load_deployment_config(file).alerts.to == ("slack://secret", "json://h")


def test_overrides_are_filled_in_with_the_day_that_a_run_is_for() -> None:
    overrides = ["source.path=s3://raw/{logical_date}/x", "seed=1"]
    assert fill_in(overrides, logical_date="2026-01-31") == [
        "source.path=s3://raw/2026-01-31/x",
        "seed=1",
    ]


def deployment(name: str, source: str = "in") -> Deployment:
    config = DeploymentConfig(name=name, recipe="x.yaml", watch={"settle_seconds": 1.5})
    return Deployment(file="a.yaml", config=config, dataset=f"{name}-data", source=source)


def test_what_is_deployed_is_remembered_by_name(tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    assert list_deployed(root) == []
    remember_deployed(root, [deployment("b"), deployment("a", "s3://bucket/in")], "/work")
    remember_deployed(root, [deployment("b", "/elsewhere")], "/work")
    assert list_deployed(root) == [
        Deployed(
            name="a",
            file="a.yaml",
            directory="/work",
            dataset="a-data",
            watched="s3://bucket/in",
            settle_seconds=1.5,
        ),
        Deployed(
            name="b",
            file="a.yaml",
            directory="/work",
            dataset="b-data",
            watched="/elsewhere",
            settle_seconds=1.5,
        ),
    ]
    assert find_deployed(root, "retrain/a").path == os.path.join("/work", "a.yaml")
    with pytest.raises(ConfigError, match="not deployed"):
        find_deployed(root, "retrain/c")
