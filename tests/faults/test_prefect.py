"""Under Prefect: its Cancel button leaves nothing, and without its server no work is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from prefect_server import PrefectServer, start_server
from slow_recipe import SUPPORT, Starter, write_slow_recipe
from toy import hashes

from mmcore.core.runs import list_runs, read_events
from mmcore.executors.children import free_port
from mmcore.storage import TEMPORARY_PREFIX
from mmcore.telemetry.prefect import PrefectApi

REPOSITORY = Path(__file__).parents[2]
POOL = "test-pool"
SILENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def worker(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A process worker, and the deployment `end-to-end/test` in its pool; yields its mark."""
    directory = tmp_path_factory.mktemp("worker")
    mark = f"MM_TEST_WORKER={directory}"
    environment = {
        **os.environ,
        **prefect_server.environment(),
        "PYTHONPATH": SUPPORT,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "MM_TEST_WORKER": str(directory),
    }
    prefect = [sys.executable, "-m", "prefect"]
    for arguments in (
        ["work-pool", "create", POOL, "--type", "process"],
        ["--no-prompt", "deploy", "pipelines/flows.py:end_to_end", "-n", "test", "-p", POOL],
    ):
        subprocess.run(
            [*prefect, *arguments], env=environment, cwd=REPOSITORY, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", POOL, "--install-policy", "never"],
            env=environment, cwd=REPOSITORY, stdout=log, stderr=log,
        )  # fmt: skip
    yield mark
    process.terminate()
    process.wait(timeout=60)
    processes.kill(processes.with_text(mark))


def run_of_flow(root: Path) -> dict[str, object]:
    """Return the record of the only run below a root."""
    (run,) = list_runs(str(root))
    return run


def has_happened(root: Path, kind: str, step: str) -> bool:
    return any(
        (event["kind"], event["step"]) == (kind, step)
        for run in list_runs(str(root))
        for event in read_events(run["url"])
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("how", "executor"),
    [pytest.param("button", "ray", marks=pytest.mark.slow), ("mm cancel", "local")],
)
def test_a_flow_that_is_cancelled_ends_as_cancelled_and_leaves_nothing(
    worker: str, api: PrefectApi, starter: Starter, tmp_path: Path, how: str, executor: str
) -> None:
    root = tmp_path / "root"
    recipe = write_slow_recipe(tmp_path)
    deployment = api.deployment("end-to-end", "test")
    assert deployment is not None
    parameters = {"recipe": str(recipe), "root": str(root), "executor": executor, "workers": 2}
    flow_run = api.create_flow_run(deployment.id, parameters)
    processes.wait_until(
        lambda: has_happened(root, "task_finished", "clean"), seconds=240, what="clean is under way"
    )
    run = run_of_flow(root)
    assert run["flow_run_id"] == flow_run.id
    flow_process = int(str(run["pid"]))
    its = {flow_process} | processes.children(flow_process)
    assert len(its) >= 3
    if how == "button":
        api.cancel(flow_run.id)
    else:
        command = [sys.executable, "-m", "mmcore", "cancel", str(run["run_id"])]
        subprocess.run([*command, "--root", str(root)], check=True, stderr=subprocess.DEVNULL)
    processes.wait_until(
        lambda: not [pid for pid in its if os.path.exists(f"/proc/{pid}")],
        seconds=SILENCE_SECONDS,
        what="no process of the flow is left",
    )
    run = run_of_flow(root)
    assert run["status"] == "cancelled"
    assert not [path for path in root.rglob("*") if TEMPORARY_PREFIX in path.name]
    processes.wait_until(
        lambda: api.flow_run(flow_run.id).has_ended, seconds=30, what="Prefect knows"
    )
    assert api.flow_run(flow_run.id).state_type == "CANCELLED"
    again = starter.run(recipe, root, "--workers", "1")
    assert again.finish() == 0, again.said()
    resumed = {
        event["step"]: event["num_resumed"]
        for event in read_events(str(again.record()["url"]))
        if event["kind"] == "step_started"
    }
    assert resumed["clean"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_prefect_server_that_is_killed_during_a_run_loses_no_work_and_doubles_none(
    starter: Starter, tmp_path: Path
) -> None:
    recipe, root = write_slow_recipe(tmp_path), tmp_path / "root"
    flow = starter.run(
        recipe, root, "--workers", "1", "--executor", "local", command=("pipelines",),
        environment={"PREFECT_HOME": str(tmp_path / "prefect")},
    )  # fmt: skip
    flow.wait_for("task_finished", "clean", seconds=240)
    servers = [
        pid
        for pid in processes.children(flow.process.pid)
        if "prefect.server" in processes.command_of(pid)
    ]
    assert len(servers) == 1
    os.kill(servers[0], signal.SIGKILL)
    started = time.monotonic()
    flow.finish(seconds=300)
    assert time.monotonic() - started < 240
    assert_that_each_step_was_made_once(starter, recipe, root, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_prefect_server_that_is_wiped_during_a_run_loses_no_work_and_doubles_none(
    starter: Starter, tmp_path: Path
) -> None:
    recipe, root = write_slow_recipe(tmp_path), tmp_path / "root"
    home, port = tmp_path / "prefect", free_port()
    home.mkdir()
    server = start_server(home, port)
    known = PrefectServer(f"http://127.0.0.1:{port}/api", str(home / "client"))
    try:
        flow = starter.run(
            recipe, root, "--workers", "1", "--executor", "local", command=("pipelines",),
            environment=known.environment(),
        )  # fmt: skip
        flow.wait_for("task_finished", "clean", seconds=240)
        server.kill()
        server.wait()
        shutil.rmtree(home / "server")
        server = start_server(home, port)  # it has never heard of the flow run
        flow.finish(seconds=300)
        assert_that_each_step_was_made_once(starter, recipe, root, tmp_path / "whole")
    finally:
        server.kill()
        server.wait()


def assert_that_each_step_was_made_once(
    starter: Starter, recipe: Path, root: Path, elsewhere: Path
) -> None:
    """Finish what a run left, and compare it with a run that nobody disturbed."""
    again = starter.run(recipe, root, "--workers", "1")
    assert again.finish() in (0, 4), again.said()
    made = [
        event["step"]
        for run in list_runs(str(root))
        for event in read_events(run["url"])
        if event["kind"] == "step_finished"
    ]
    assert len(made) == len(set(made)) == 7
    whole = starter.run(recipe, elsewhere, "--workers", "1")
    assert whole.finish() == 0
    assert hashes(root) == hashes(elsewhere)
