"""How peaks of memory grow with the corpus: of the driver, of a worker, of a decoder process.

A whole recipe on Ray, two workers, once for each size, each in processes of its own. Of every
process that belongs to it, its proportional share (Pss in smaps_rollup), ten times a second.
"""

import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from asked import asked_of_us
from figures import Row, row
from turns import shared_memory

from data_plane.pictures import write_pictures

NUM_PICTURES = 512
WIDTH = 96
TIMES = {10: 1.03, 100: 1.08}
ROLES = {"ray::": "worker", "mmcore.core.decoder_process": "decoder"}
RECIPE = """\
name: small
source: {{path: {corpus}, layout: {{use: folder}}, samples_per_task: 64}}
clean: {{decode_image: , min_side: , flatness: , sign_image: }}
dedup:
  exact_duplicates: {{same: [image]}}
  near_duplicates: {{max_distance: {{image: 3}}}}
split: {{together: [image]}}
encode: {{encode_image: {{side: 64}}}}
shard: {{samples_per_shard: 64}}
"""
"""Small tasks and shards: of the smallest corpus as well, there are more than are under way."""
_SECONDS = 0.1
_MIB = 2**20


def figures(num_pictures: int) -> list[Row]:
    """Return peaks at ten and a hundred times the corpus, in MiB."""
    peaks = {}
    said = {}
    for times in (1, *TIMES):
        num = num_pictures * times
        with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
            write_pictures(Path(scratch, "corpus"), num_pictures=num, width=WIDTH)
            recipe = Path(scratch, "recipe.yaml")
            recipe.write_text(RECIPE.format(corpus=Path(scratch, "corpus")))
            started = time.perf_counter()
            peaks[num], said[num] = _peaks(str(recipe), f"{scratch}/root")
        rounded = {name: round(one / _MIB, 1) for name, one in peaks[num].items()}
        print(
            f"  {num}: {rounded}, {time.perf_counter() - started:.0f} s, {said[num]}",
            file=sys.stderr,
        )
    rows = []
    for times, goal in TIMES.items():
        num = num_pictures * times
        for name in ("driver", "worker", "decoder", "together"):
            few, many = peaks[num_pictures][name], peaks[num][name]
            each = (many - few) / (num - num_pictures)
            rows.append(row(f"peak memory of {_what(name)}, {num:,} samples / {num_pictures:,}, MiB",
                            many / _MIB, few / _MIB, goal=goal, better="lower", value=many / few,
                            note=f"{each:,.0f} bytes for each sample more"))  # fmt: skip
    largest = said[num_pictures * max(TIMES)]
    rows.append(row(f"spilled by Ray, {num_pictures * max(TIMES):,} samples, MiB", largest["spilled"],
                    0, goal=0, better="lower", value=largest["spilled"]))  # fmt: skip
    return rows


def _what(name: str) -> str:
    return {"driver": "the driver", "together": "all together"}.get(name, f"the largest {name}")


def _peaks(recipe: str, root: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the peak of each role, and what the run says of itself."""
    process = asked_of_us("data_plane.memory", recipe, root)
    peaks: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SECONDS):
            together = 0.0
            for role, num_bytes in _shares(process.pid):
                together += num_bytes
                peaks[role] = max(peaks.get(role, 0.0), num_bytes)
            peaks["together"] = max(peaks.get("together", 0.0), together)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = process.ask()
    finally:
        done.set()
        watcher.join()
        process.close()
    return peaks, said


def _shares(pid: int) -> Iterator[tuple[str, float]]:
    """Yield the role and the share of memory of a process and of all below it."""
    driver = psutil.Process(pid)
    for one in (driver, *driver.children(recursive=True)):
        try:
            command = " ".join(one.cmdline())
            text = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue
        role = next((role for word, role in ROLES.items() if word in command), "ray itself")
        share = re.search(r"^Pss: +(\d+)", text, re.MULTILINE)
        if share is not None and "ray::IDLE_SpillWorker" not in command:
            yield ("driver" if one.pid == pid else role), int(share[1]) * 1024.0


def main() -> None:
    """Run a recipe when asked, and say what Ray spilled."""
    import ray
    from ray._private.internal_api import memory_summary

    from mmcore.core.runner import Run
    from mmcore.executors import make_executor
    from mmcore.recipe.build import load_recipe

    sys.stdin.readline()
    executor = make_executor("ray", num_workers=2)
    try:
        done = Run(load_recipe(sys.argv[1]).graph, root=sys.argv[2], executor=executor).run()
        said = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
        assert "Plasma memory usage" in said, f"Ray says nothing of its store: {said}"
        spilled = re.search(r"^Spilled (\d+) MiB", said, re.MULTILINE)
        found = {"spilled": float(spilled[1]) if spilled else 0.0}
        kept = done["shard"].artifact.manifest.counts.kept
        # before the cluster ends: when those it shares libraries with are gone, a process has them
        # all for itself, for as long as it lives, which is chance
        print(json.dumps({**found, "kept": kept}), flush=True)
    finally:
        executor.close()


if __name__ == "__main__":
    main()
