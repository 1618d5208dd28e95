"""Runs whose process is gone: told of once, and Prefect is told too."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alert_receiver import Receiver, receiver
from prefect_server import PrefectServer
from processes import wait_until

from mmcore.operate.deaths import Deaths
from mmcore.operate.deployed import Deployed
from mmcore.telemetry.prefect import PrefectApi

__all__ = ["receiver"]
# apprise's plug-ins import it
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
BEGIN_AND_WAIT = """
import sys, time
from mmcore.core.run_log import RunLog
flow = {"flow_run_id": sys.argv[2]} if len(sys.argv) > 2 else None
log = RunLog(sys.argv[1], recipe="r.yaml", name="texts", executor="local", flow=flow)
log.beat()
print(log.run_id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def deployed(tmp_path: Path, receiver: Receiver) -> Deployed:
    (tmp_path / "d.yaml").write_text(
        f"name: texts\nrecipe: r.yaml\nalerts: {{to: ['{receiver.url}'], on: [died]}}\n"
    )
    return Deployed(
        name="texts", file="d.yaml", directory=str(tmp_path), dataset="texts", watched=None
    )


class Process:
    """A process that is in the middle of a run."""

    def __init__(self, root: Path, *more: str) -> None:
        command = [sys.executable, "-c", BEGIN_AND_WAIT, str(root), *more]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.run_id = self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path / "root")
    yield started
    started.kill()


def test_a_run_whose_process_is_killed_is_told_of_once(
    tmp_path: Path, process: Process, deployed: Deployed, receiver: Receiver
) -> None:
    root = str(tmp_path / "root")
    deaths = Deaths(root)
    assert deaths.look([deployed]) == []
    process.kill()
    (died,) = deaths.look([deployed])
    assert died["run_id"] == process.run_id
    assert deaths.look([deployed]) == []
    assert Deaths(root).look([deployed]) == []
    (alert,) = receiver.alerts
    assert process.run_id in alert["message"]
    assert "go" in alert["message"]


def test_what_was_dead_before_anybody_looked_is_old_news(
    tmp_path: Path, process: Process, deployed: Deployed, receiver: Receiver
) -> None:
    process.kill()
    assert Deaths(str(tmp_path / "root")).look([deployed]) == []
    assert receiver.alerts == []


def test_a_run_that_dies_while_nobody_looks_is_told_of_afterwards(
    tmp_path: Path, process: Process, deployed: Deployed, receiver: Receiver
) -> None:
    root = str(tmp_path / "root")
    Deaths(root).look([deployed])
    process.kill()
    Deaths(root).look([deployed])
    assert len(receiver.alerts) == 1
    told = json.loads((tmp_path / "root/state/watch/deaths.json").read_text())
    assert told == [process.run_id]


def test_the_flow_run_of_a_dead_run_is_crashed_for_prefect_too(
    tmp_path: Path,
    prefect_server: PrefectServer,
    api: PrefectApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in prefect_server.environment().items():
        monkeypatch.setenv(variable, value)
    flow = api._ask("POST", "/flows/", {"name": "deaths"})
    run = api._ask("POST", "/flow_runs/", {"name": "r", "flow_id": flow["id"]})
    for state in ("PENDING", "RUNNING"):
        api.set_state(run["id"], state)  # type: ignore[arg-type]
    deaths = Deaths(str(tmp_path / "root"))
    process = Process(tmp_path / "root", run["id"])
    deaths.look([])
    process.kill()
    deaths.look([])
    wait_until(lambda: api.flow_run(run["id"]).has_ended, seconds=10, what="the flow run has ended")
    ended = api.flow_run(run["id"])
    assert (ended.state_type, ended.state_name) == ("CRASHED", "Died")
    assert process.run_id in ended.message
