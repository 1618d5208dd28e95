"""The operator's day, for real: services up, a recipe deployed, files dropped, a new champion."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from corpus import TINY_MODEL, write_corpus, write_recipe, write_sample
from processes import with_text

from mmcore.core.lineage import dataset_versions
from mmcore.core.manifest import verify_artifact
from mmcore.operate import ports
from mmcore.operate.connection import connect
from mmcore.recipe.retrain import DecisionRecord, list_decisions

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1200)
TRIALS = int(os.environ.get("MM_FAULT_TRIALS", "1"))
SEED = 7
MODEL = f"""{TINY_MODEL}
retrain: {{min_new_samples: 3, quiet_seconds: 1}}
"""
DEPLOYMENT = """
name: tiny
recipe: %s
executor: local
workers: 1
retries: {max_retries: 5, delay_seconds: 3, backoff: 1.0}
watch: {settle_seconds: 1, debounce_seconds: 1}
"""


class Operated:
    """A watched folder, its recipe and deployment, and the services."""

    def __init__(self, directory: Path) -> None:
        self.root = str(directory / "root")
        self.corpus = write_corpus(directory / "drop")
        recipe = write_recipe(directory / "tiny.yaml", self.corpus, more=MODEL)
        self.deployment = directory / "deployment.yaml"
        self.deployment.write_text(DEPLOYMENT % recipe)
        self.environment = {**os.environ, "MM_ROOT": self.root}
        self.num_dropped = 0

    def mm(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mmcore", *arguments],
            env=self.environment, cwd=REPOSITORY, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in codes, done.stdout + done.stderr
        return done.stdout

    def drop(self, num: int) -> None:
        for _ in range(num):
            number = 300 + self.num_dropped
            write_sample(self.corpus / ("red", "blue")[number % 2] / f"{number:03d}", number)
            self.num_dropped += 1

    def decided(self) -> list[DecisionRecord]:
        """The retrainings that came to an end, the oldest first."""
        found = [one for one in list_decisions(self.root, "tiny") if one.outcome is not None]
        return found[::-1]

    def wait_for_decision(self, number: int, *, seconds: float = 240) -> DecisionRecord:
        deadline = time.monotonic() + seconds
        while len(found := self.decided()) < number:
            assert time.monotonic() < deadline, self.story()
            time.sleep(0.5)
        return found[number - 1]

    def story(self) -> str:
        logs = Path(self.root, "services", "logs")
        tails = [f"== {log.name}\n{log.read_text()[-2500:]}" for log in sorted(logs.glob("*.log"))]
        return f"{list_decisions(self.root)}\n" + "\n".join(tails)

    def pid(self, service: str) -> int:
        state = json.loads(Path(self.root, "services", "services.json").read_text())
        pid: int = state["services"][service]["pid"]
        return pid


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    operated = Operated(tmp_path_factory.mktemp("operated"))
    services = [
        f"--service={name}" for name in ("prefect", "worker", "mlflow", "watch", "dashboard")
    ]
    try:
        operated.mm("up", "--port-base", str(ports.free_base()), *services)
        operated.mm("deploy", str(operated.deployment))
        yield operated
    finally:
        operated.mm("down", codes=(0, 4))
        assert not with_text(operated.root)


@pytest.fixture(scope="module")
def first(operated: Operated) -> DecisionRecord:
    operated.drop(1)
    return operated.wait_for_decision(1)


def test_files_in_the_watched_folder_become_a_champion(
    operated: Operated, first: DecisionRecord
) -> None:
    assert first.outcome is not None
    assert (first.outcome["status"], first.outcome["model"]) == ("promoted", "tiny/1")
    assert first.trigger == "new data"


def test_more_files_become_a_new_champion_or_a_refusal_that_says_why(
    operated: Operated, first: DecisionRecord
) -> None:
    operated.drop(8)
    second = operated.wait_for_decision(2)
    assert second.outcome is not None
    assert second.verdict.num_new_samples == 8
    assert second.outcome["status"] in ("promoted", "kept_champion")
    assert re.match(r"accuracy [0-9.]+ against [0-9.]+ of version 1", second.outcome["why"])
    models = json.loads(operated.mm("models", "--json"))["models"]
    assert [one["version"] for one in models] == [2, 1]
    champion = 2 if second.outcome["status"] == "promoted" else 1
    assert [one["version"] for one in models if "champion" in one["aliases"]] == [champion]


def test_the_dashboard_shows_the_champion_and_gives_its_place_back(
    operated: Operated, first: DecisionRecord
) -> None:
    there = connect(operated.root)
    with httpx.Client(base_url=str(there.dashboard_url), timeout=30) as browser:
        assert browser.get("/").status_code in (302, 303, 307, 401)
        browser.get("/login", params={"token": str(there.token)})
        home = browser.get("/")
        assert home.status_code == 200
        assert "tiny" in home.text
        assert browser.get("/models").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(TRIALS))
def test_whatever_is_killed_while_it_retrains_there_is_one_champion_and_nothing_is_doubled(
    operated: Operated, first: DecisionRecord, trial: int
) -> None:
    chance = random.Random(SEED + trial)
    before = len(operated.decided())
    operated.drop(4)
    victims = ["flow", "worker", "prefect", "mlflow"]
    chance.shuffle(victims)
    print("killed in this order:", victims)
    for victim in victims:
        time.sleep(chance.uniform(1.0, 8.0))
        _kill(operated, victim)
    operated.wait_for_decision(before + 1, seconds=420)
    versions = dataset_versions(operated.root, "tiny")
    newest: Any = versions[-1].artifact.manifest.facts
    expected = 24 + operated.num_dropped
    assert sum(newest["num_samples"].values()) == expected
    for version in versions:
        assert verify_artifact(version.artifact.url, version.artifact.manifest) == []
    models = json.loads(operated.mm("models", "--json"))["models"]
    assert len({one["run_key"] for one in models}) == len(models)
    assert sum("champion" in one["aliases"] for one in models) == 1


def _kill(operated: Operated, victim: str) -> None:
    if victim == "flow":
        for pid in with_text("PREFECT__FLOW_RUN_ID"):
            if operated.root in " ".join(_environment(pid)):
                os.kill(pid, signal.SIGKILL)
        return
    for process in [psutil.Process(operated.pid(victim))]:
        process.kill()


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
