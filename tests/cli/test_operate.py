"""`mm deploy`, `schedule`, `backfill`, `watch` and `notify-data`: what they say and end with."""

import os
from pathlib import Path

import pytest
from command import Mm
from prefect_server import PrefectServer
from toy import write_corpus

from mmcore.telemetry.prefect import PrefectApi

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a corpus, its recipe and a deployment file, and a server to deploy to."""
    for name, value in prefect_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MM_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    (tmp_path / "texts.yaml").write_text(
        "name: cli-texts\nsource: {path: corpus, layout: {use: folder}}\nsplit: {together: [text]}\n"
    )
    (tmp_path / "configs/deployments").mkdir(parents=True)
    (tmp_path / "configs/deployments/texts.yaml").write_text(
        "name: cli-texts\nrecipe: texts.yaml\nexecutor: local\nflows: [retrain]\n"
        "schedules: [{slug: nightly, cron: '0 3 * * *', timezone: Europe/Oslo}]\n"
        "watch: {settle_seconds: 0}\n"
    )
    return tmp_path


def test_the_printed_file_is_the_committed_one_and_needs_no_server(
    mm: Mm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    said = mm("deploy", "--print")
    assert said.code == 0
    assert said.out == (REPOSITORY / "prefect.yaml").read_text()


def test_from_deploying_to_pausing_to_a_backfill(mm: Mm, project: Path) -> None:
    would = mm("deploy", "--dry-run")
    assert would.out == "would be retrain/cli-texts: created\n"
    first = mm("deploy")
    assert first.code == 0, first.err
    assert "retrain/cli-texts: created" in first.out
    assert "next: retrain/cli-texts (nightly) at" in first.err
    again = mm("deploy", "--json").json()
    assert (again["done"], again["schema"]) == ([], "mm.deploy/1")
    assert "retrain/cli-texts" in again["unchanged"]

    assert mm("schedule", "pause", "retrain/cli-texts").out == (
        "retrain/cli-texts nightly: paused\n"
    )
    assert "nightly  cron '0 3 * * *' Europe/Oslo  paused" in mm("schedule").out
    assert "already" in mm("schedule", "pause", "cli-texts", "nightly").out
    (row,) = mm("schedule", "list", "cli-texts", "--json").json()["schedules"]
    assert (row["slug"], row["active"], row["next"]) == ("nightly", False, None)
    wrong = mm("schedule", "resume", "retrain/cli-text")
    assert wrong.code == 2
    assert "Did you mean 'retrain/cli-texts'?" in wrong.err

    days = ["--from", "2026-01-01", "--to", "2026-01-02"]
    assert mm("backfill", "cli-texts", *days, "--dry-run").out.count("would run") == 2
    assert mm("backfill", "cli-texts", *days).code == 0
    nothing = mm("backfill", "cli-texts", *days)
    assert nothing.code == 4
    assert nothing.out.count("asked for before") == 2


def test_watching_once_tells_of_what_is_new_and_then_of_nothing(
    mm: Mm, project: Path, api: PrefectApi
) -> None:
    said = mm("watch", "texts.yaml", "--once", "--settle", "0", "--json")
    assert said.code == 0, said.err
    arrival = said.json()
    assert (arrival["dataset"], arrival["source"]) == ("cli-texts", str(project / "corpus"))
    assert arrival["num_files"] == len(os.listdir(project / "corpus"))
    nothing = mm("watch", "texts.yaml", "--once", "--settle", "0")
    assert (nothing.code, nothing.out) == (4, "")
    assert mm("watch", "configs/deployments/texts.yaml", "--once").code == 4
    (project / "in").mkdir()
    assert "--dataset" in mm("watch", "in", "--once").err
    assert mm("watch", "in", "--once", "--dataset", "other").code == 4
    assert mm("watch", "nowhere", "--once").code == 2


def test_notify_data_emits_the_event_of_the_recipe(mm: Mm, project: Path) -> None:
    said = mm("notify-data", "texts.yaml", "--files", "texts.yaml", "--json")
    assert said.code == 0, said.err
    assert said.json()["dataset"] == "cli-texts"


@pytest.mark.parametrize(
    "arguments",
    [
        ["schedule"],
        ["backfill", "retrain/x", "--from", "2026-01-01", "--to", "2026-01-01"],
        ["notify-data", "texts.yaml"],
        ["deploy"],
        ["watch", "texts.yaml", "--once", "--settle", "0"],
    ],
)
def test_without_a_server_each_says_how_to_get_one(
    mm: Mm, project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    said = mm(*arguments)
    assert said.code == 1
    assert "mm up" in said.err


@pytest.mark.parametrize("arguments", [["--from", "yesterday", "--to", "2026-01-01"], []])
def test_a_backfill_without_days_is_refused(mm: Mm, arguments: list[str]) -> None:
    assert mm("backfill", "retrain/x", *arguments).code == 2
