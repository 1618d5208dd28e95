"""A process that runs a recipe with two workers and says how large it and they have been."""

import json
import re
import sys
from pathlib import Path

import psutil

from mmcore.core.runner import Event, Run
from mmcore.executors import make_executor
from mmcore.recipe.build import load_recipe

_WORKER = "multiprocessing"


def main(recipe: str, root: str) -> None:
    """Run it, and print the peaks in bytes."""
    # read where a task has ended: its worker is still there
    peaks = {"driver": 0, "worker": 0}

    def listener(event: Event) -> None:
        if event.kind == "task_finished":
            workers = [one for one in psutil.Process().children() if _is_worker(one)]
            peaks["worker"] = max(peaks["worker"], *map(_peak, workers), 0)

    executor = make_executor("local", num_workers=2)
    try:
        done = Run(load_recipe(recipe).graph, root=root, executor=executor, listener=listener).run()
    finally:
        executor.close()
    peaks["driver"] = _peak(psutil.Process())
    print(json.dumps({**peaks, "kept": done["shard"].artifact.manifest.counts.kept}))


def _is_worker(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return any(_WORKER in word and "spawn_main" in word for word in command)


def _peak(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
