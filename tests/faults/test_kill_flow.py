"""A killed Prefect flow leaves no process, its server included, and the next run goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from toy import hashes

from mmcore.ingest.generate import make_corpus

RECIPE = str(Path(__file__).parents[2] / "configs/recipes/generated_data.yaml")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_flow_killed_while_shards_are_written_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    make_corpus(str(tmp_path / "corpus"), num_samples=300, seed=2)
    mark = f"MM_TEST_MARK={tmp_path}"
    environment = os.environ | {
        "MM_CORPUS": str(tmp_path / "corpus"),
        "MM_TEST_MARK": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }

    def run(root: str, *program: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *program, RECIPE, "--root", str(tmp_path / root)]
        return subprocess.Popen(
            [*command, "--set", "source.samples_per_task=30", "--workers", "2"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    killed = run("killed", "pipelines")
    record = "steps/generated/clean/*/_tasks/*.json"
    processes.wait_until(
        lambda: any((tmp_path / "killed").glob(record)), seconds=240, what="a task is recorded"
    )
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    processes.wait_until(
        lambda: not processes.with_text(mark), seconds=10, what="no process outlives the flow"
    )
    assert not list((tmp_path / "killed" / "ds").glob("*/*/manifest.json"))
    assert run("killed", "mmcore", "run").wait() == 0
    assert run("whole", "mmcore", "run").wait() == 0
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
