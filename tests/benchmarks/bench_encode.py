"""Figures of encoding: what the decoder process, the accounting and Ray add to a bare loop.

    python tests/benchmarks/bench_encode.py              # a thousand pictures of 500 px
    python tests/benchmarks/bench_encode.py --side 1280 --pictures 300

Compared are seconds of the processor, of this process and all below it, over the same bytes: a
bare loop of decode, resize and encode, and the step `encode` over ingested samples. Interleaved,
the first round dropped, ratios of medians.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import psutil
import simplejpeg
from figures import Row, publish, row

from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.stage import Stage
from mmcore.core.step import Step
from mmcore.encode.image import EncodeImage
from mmcore.executors import make_executor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork

ROUNDS = 6
SIDE = 256
PER_TASK = 250


def write_pictures(directory: Path, *, num_pictures: int, width: int) -> list[bytes]:
    """Write noisy photographs, two bits a pixel, no two alike; return their bytes."""
    draw = np.random.default_rng(0)
    height = width * 3 // 4
    base = cv2.resize(draw.integers(0, 256, (12, 16, 3)).astype(np.uint8), (width, height),
                      interpolation=cv2.INTER_CUBIC).astype(np.int16)  # fmt: skip
    noise = draw.normal(0, 4, (height + 97, width + 89, 3)).astype(np.int16)
    found = []
    for number in range(num_pictures):
        top, left = number % 97, number * 7 % 89
        pixels = base + noise[top : top + height, left : left + width]
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)),
            quality=92,
            colorsubsampling="420",
        )
        (directory / f"p{number:05d}.jpg").write_bytes(data)
        found.append(data)
    return found


def bare(pictures: list[bytes]) -> None:
    """Decode, resize and encode, and nothing else."""
    for data in pictures:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        scale = SIDE / max(height, width)
        size = round(width * scale), round(height * scale)
        pixels = simplejpeg.decode_jpeg(data, min_width=size[0], min_height=size[1])
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        simplejpeg.encode_jpeg(small, quality=95, colorsubsampling="420")


def seconds_of_all() -> float:
    """Return the processor's time of this process and of everything below it, dead or alive."""
    me = psutil.Process()
    total = 0.0
    for one in (me, *me.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def step_seconds(
    corpus: Path, stage: Stage, executor: Executor, scratch: Path
) -> Callable[[], float]:
    """Return the function that makes the step `encode` anew and says what it cost."""
    encode = MapWork(step="encode", samples_from="ingest", stages=(stage,))
    ingest = IngestWork(layout=FolderLayout(), samples_per_task=PER_TASK)
    graph = Graph(
        "bench",
        Source(str(corpus)),
        (Step("ingest", ingest, ("scan",)), Step("encode", encode, ("ingest",))),
    )
    root = tempfile.mkdtemp(dir=scratch)
    run = Run(graph, root=root, executor=executor)
    run.run(["ingest"])

    def again() -> float:
        plan = run.plan(["encode"])
        before = seconds_of_all()
        run.run_step("encode", plan)
        spent = seconds_of_all() - before
        for path in Path(root).rglob("*"):
            if "encode" in path.parts and path.is_file():
                path.unlink()
        return spent

    return again


def timed_bare(pictures: list[bytes]) -> Callable[[], float]:
    """Return the function that runs the bare loop and says what it cost."""

    def again() -> float:
        started = time.process_time()
        bare(pictures)
        return time.process_time() - started

    return again


def main() -> None:
    """Measure, print a table, and write build/benchmarks/encode.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=500, help="width of the pictures in pixels")
    parser.add_argument("--no-ray", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=shared) as directory:
        corpus = Path(directory) / "corpus"
        corpus.mkdir()
        pictures = write_pictures(corpus, num_pictures=options.pictures, width=options.side)
        whole = EncodeImage(fit="inside", side=SIDE, subsampling="420")
        passed = EncodeImage(fit="inside", side=options.side, pass_through=True, proof="markers")
        local = make_executor("local", num_workers=1)
        arms = {
            "bare": timed_bare(pictures),
            "local": step_seconds(corpus, whole, local, Path(directory)),
            "passed": step_seconds(corpus, passed, local, Path(directory)),
        }
        ray = None if options.no_ray else make_executor("ray", num_workers=1)
        if ray is not None:
            arms["ray"] = step_seconds(corpus, whole, ray, Path(directory))
        found: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(ROUNDS):
            for name, arm in arms.items():
                found[name].append(arm())
        for one in (local, ray):
            if one is not None:
                one.close()
    cost = {name: median(times[1:]) / options.pictures for name, times in found.items()}
    print({name: [round(one, 2) for one in times] for name, times in found.items()})
    publish(_rows(cost, options.side), "encode")


def _rows(cost: dict[str, float], side: int) -> list[Row]:
    rows = [
        row(f"encode {side} px against the bare loop, local, pictures per second and core",
            1 / cost["local"], 1 / cost["bare"], goal=0.92, better="higher",
            value=cost["bare"] / cost["local"]),
        row(f"pass-through of {side} px against the bare loop, local",
            1 / cost["passed"], 1 / cost["bare"], goal=5.0, better="higher",
            value=cost["bare"] / cost["passed"]),
    ]  # fmt: skip
    if "ray" in cost:
        rows.append(
            row(f"encode {side} px against the bare loop, through Ray", 1 / cost["ray"],
                1 / cost["bare"], goal=0.92, better="higher", value=cost["bare"] / cost["ray"])
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
