"""Killed anywhere, it goes on: the same bytes, no process and no half file left behind."""

import os
import signal
from pathlib import Path
from typing import Any

import processes
import pytest
from toy import Shout, hashes, run_toy, toy_graph
from toy_driver import PAUSE

from mmcore.storage import TEMPORARY_PREFIX

Start = Any
Undisturbed = Any


def leftovers(root: Path) -> list[str]:
    return [
        str(path)
        for path in root.rglob("*")
        if TEMPORARY_PREFIX in path.name or path.name == "_tasks"
    ]


def resume(corpus: Path, root: Path) -> dict[str, int]:
    """Run again to the end; return how many tasks each step found done."""
    resumed = {}

    def hear(event: Any) -> None:
        if event.kind == "step_started":
            resumed[event.step] = event.facts["num_resumed"]

    run_toy(toy_graph(corpus, stage=Shout(pause=PAUSE)), root, listener=hear)
    return resumed


def test_a_killed_ray_worker_is_replaced_and_the_bytes_are_the_same(
    undisturbed: Undisturbed, start: Start, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    driver = start(undisturbed.corpus, root, "ray")
    driver.wait_for("step_started clean")
    victims: list[int] = []

    def find() -> bool:
        below = processes.children(driver.process.pid)
        victims.extend(pid for pid in below if processes.command_of(pid).startswith("ray::_apply"))
        return bool(victims)

    processes.wait_until(find, seconds=30, what="a worker is at work")
    os.kill(victims[0], signal.SIGKILL)
    assert driver.finish() == 0
    assert hashes(root) == undisturbed.hashes
    assert leftovers(root) == []


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_killed_driver_leaves_no_process_and_the_next_run_goes_on(
    undisturbed: Undisturbed, start: Start, tmp_path: Path, executor: str
) -> None:
    root = tmp_path / "root"
    driver = start(undisturbed.corpus, root, executor)
    driver.wait_for("task_finished clean")
    assert len(driver.its_processes()) >= 3
    driver.kill()
    processes.wait_until(
        lambda: not driver.its_processes(), seconds=10, what="no process outlives its driver"
    )
    assert not list((root / "steps" / "toy" / "clean").glob("*/manifest.json"))
    resumed = resume(undisturbed.corpus, root)
    assert resumed["clean"] >= 1
    assert "ingest" not in resumed
    assert hashes(root) == undisturbed.hashes
    assert leftovers(root) == []
