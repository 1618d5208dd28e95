"""Rules over a corpus: memory for each sample, and what an increment costs.

Rows are made up: keys, a picture by reference, prints of a picture and of a text, a label. Each step
runs in a process of its own: CPU seconds of the whole task, and the peak of its anonymous memory
(mapped files can be dropped at any time), both beside those of a small corpus or of the increment
alone.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from asked import OURS
from figures import Row, row
from turns import shared_memory

from mmcore.core.corpus_work import CorpusWork
from mmcore.core.manifest import Counts, FileRecord, Manifest
from mmcore.core.rows import write_part
from mmcore.core.step import Artifact, Inputs, Task, TaskContext
from mmcore.dedup.exact import ExactDuplicates
from mmcore.dedup.near import NearDuplicates
from mmcore.dedup.split import GroupSplit
from mmcore.sample import Part, PartRef, Sample, sha256_hex

NEAR = {"max_distance": {"image": 3}, "min_similarity": {"text": 0.8}}
WORKS = {
    "exact": CorpusWork(
        step="dedup", samples_from="clean", rules=(ExactDuplicates(same=("image",)),)
    ),
    "near": CorpusWork(step="dedup", samples_from="clean", rules=(NearDuplicates(**NEAR),)),
    "split": CorpusWork(
        step="dedup",
        samples_from="clean",
        rules=(GroupSplit(together=("image",), stratify="meta:label"),),
    ),
}
ROWS_PER_FILE = 1000


def samples(first: int, num: int) -> Iterator[Sample]:
    """Of twenty one is an exact twin, and one is near, mostly of an old one."""
    for number in range(first, first + num):
        rng = np.random.default_rng(number)
        original = int(rng.integers(0, number + 1)) if number % 20 < 2 else number
        prints = np.random.default_rng([original, 1]).integers(0, 256, 552, np.uint8)
        prints[8:264] = np.arange(256)
        prints[264:296] = 0
        prints[7] ^= number % 20 == 1
        image = sha256_hex(str(original if number % 20 == 0 else number).encode())
        meta = {
            "print_image": base64.b64encode(prints[:296].tobytes()).decode(),
            "print_text": base64.b64encode(prints[296:].tobytes()).decode(),
            "label": f"class-{number % 50}",
        }
        key = f"{image[:12]}__{number:09d}"
        part = Part(ref=PartRef("source", f"{key}.jpg", 0, 1000, image))
        yield Sample(key, {"jpg": part}, meta)


def make(url: Path, first: int, num: int) -> None:
    """Write rows as `clean` leaves them, and their manifest."""
    context = TaskContext(Inputs({}, {}), str(url), str(url))
    reports = [
        write_part(
            f"part-{start:09d}",
            (("", one) for one in samples(start, min(ROWS_PER_FILE, first + num - start))),
            step="clean",
            context=context,
        )
        for start in range(first, first + num, ROWS_PER_FILE)
    ]
    files = tuple(file for report in reports for file in report.files)
    counts = Counts.total(report.counts for report in reports)
    save(Artifact(str(url), Manifest("clean", "", {}, counts, files)))


def save(artifact: Artifact) -> None:
    """Keep a manifest for the next process."""
    Path(artifact.url, "made.json").write_text(json.dumps(asdict(artifact.manifest)))


def load(url: Path) -> Artifact:
    """Return what was kept."""
    value = json.loads((url / "made.json").read_text())
    value["files"] = tuple(FileRecord(**record) for record in value["files"])
    value["counts"] = Counts(**value["counts"])
    return Artifact(str(url), Manifest(**value))


def run_one(name: str, clean: Path, output: Path, earlier: Path | None) -> None:
    """Do the task of a step, and print what it took; in a process of its own."""
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            status = Path("/proc/self/status").read_text()
            anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            peak[0] = max(peak[0], int(anonymous.split()[1]) * 1024)

    history = ({"dedup": load(earlier)},) if earlier else ()
    context = TaskContext(Inputs({"clean": load(clean)}, {}, history), str(output), str(output))
    watcher = threading.Thread(target=watch)
    watcher.start()
    time.sleep(0.05)
    before, started = peak[0], time.process_time()
    report = WORKS[name].run(Task("all"), context)
    seconds = time.process_time() - started
    done.set()
    watcher.join()
    save(Artifact(str(output), Manifest("dedup", "", {}, report.counts, tuple(report.files))))
    print(json.dumps({"seconds": seconds, "bytes": peak[0] - before}))


def measured(name: str, clean: Path, output: Path, earlier: Path | None = None) -> dict[str, float]:
    """Run a step in a process of its own."""
    arguments = [str(clean), str(output), *([str(earlier)] if earlier else [])]
    command = [sys.executable, "-m", "data_plane.rules", name, *arguments]
    environment = os.environ | {"PYTHONPATH": OURS}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures(num: int) -> list[Row]:
    """Measure every rule at two sizes, and an increment of 1 % on top of the larger."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        return _figures(num, Path(scratch))


def _figures(num: int, directory: Path) -> list[Row]:
    small, more = num // 10, num // 100
    make(directory / "small", 0, small)
    make(directory / "large", 0, num)
    make(directory / "more", num, more)
    rows = []
    for name in WORKS:
        little = measured(name, directory / "small", directory / f"{name}-small")
        much = measured(name, directory / "large", directory / f"{name}-large")
        each = (much["bytes"] - little["bytes"]) / (num - small)
        rows.append(
            row(f"{name}: bytes of memory for each sample more", each, 0, goal=400, better="lower",
                value=each)
        )  # fmt: skip
        slope = np.log(much["seconds"] / little["seconds"]) / np.log(10)
        rows.append(
            row(f"{name}: slope of cost, {small:,} to {num:,}", much["seconds"], little["seconds"],
                goal=1.05, better="lower", value=float(slope))
        )  # fmt: skip
        alone = [
            measured(name, directory / "more", directory / f"{name}-alone-{i}")["seconds"]
            for i in range(3)
        ]
        grown = [
            measured(
                name,
                directory / "more",
                directory / f"{name}-more-{i}",
                directory / f"{name}-large",
            )["seconds"]
            for i in range(3)
        ]
        rows.append(
            row(f"{name}: +1 % against the 1 % alone, {more:,}", min(grown), min(alone), goal=1.15,
                better="lower", value=min(grown) / min(alone))
        )  # fmt: skip
    return rows


def main() -> None:
    """Do the task of one step, in a process of its own."""
    name, clean, output, *earlier = sys.argv[1:]
    run_one(name, Path(clean), Path(output), Path(earlier[0]) if earlier else None)


if __name__ == "__main__":
    main()
