"""Pictures through scan, ingest, clean and encode: against the bare loop, and against img2dataset.

Seconds of the processor of everything that works: driver, Ray's own processes, workers, decoders.
Both sides make pictures of the same size: img2dataset's `keep_ratio` is about the shorter side.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import simplejpeg
from asked import IMG2DATASET, Asked, NotInstalled, environment
from figures import Row, not_measured, row
from turns import Arm, Noisy, Taken, cpu_of_all, in_turns, interval, shared_memory

from data_plane.pictures import QUALITY, SIDE, SMALL, bare, write_mix, write_pictures
from mmcore.clean.image import (
    Blurred,
    DecodeImage,
    Flatness,
    MaxMegapixels,
    MeasureImage,
    MinSide,
)
from mmcore.core.ahead import working_ahead
from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork
from mmcore.core.rows import load_part, read_kept
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.stage import Stage
from mmcore.core.step import Step
from mmcore.dedup.sign import SignImage
from mmcore.encode.image import EncodeImage
from mmcore.executors import make_executor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork

PER_TASK = 250
BY_HEADER: tuple[Stage, ...] = (MaxMegapixels(), MinSide())
"""Limits that a header answers: what does not decode is quarantined by `encode`."""
DECODED: tuple[Stage, ...] = (
    MaxMegapixels(), MeasureImage(), DecodeImage(), MinSide(), Flatness(), Blurred(), SignImage(),
)  # fmt: skip
ENCODED = EncodeImage(fit="inside", side=SIDE, quality=QUALITY, subsampling="420")
WIDTHS = {2592: (2.0, 150), 1280: (1.5, 400), 500: (1.0, 1000)}
"""Goal against img2dataset, and how many pictures are about three seconds of work."""
CONFORMING = 1280

RESIZER = """
import io, json, os, sys, time
from img2dataset.resizer import Resizer
folder, side, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
resizer = Resizer(side, "keep_ratio", encode_quality=95, **options)
names = sorted(os.listdir(folder))
for line in sys.stdin:
    num_bytes, started = 0, time.process_time()
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            data, width, height, _, _, error = resizer(io.BytesIO(file.read()))
        assert error is None, error
        num_bytes += len(data)
    spent = time.process_time() - started
    said = {"seconds": spent, "num": len(names), "bytes": num_bytes, "size": [width, height]}
    print(json.dumps(said), flush=True)
"""


def data_graph(
    corpus: Path, clean: Sequence[Stage], encode: Stage, *, per_task: int = PER_TASK
) -> Graph:
    """Return what is measured: scan, ingest, clean and encode."""
    ahead = working_ahead(clean, (encode,))
    cleaning = MapWork(step="clean", samples_from="ingest", stages=tuple(clean), ahead=ahead)
    steps = (
        Step("ingest", IngestWork(layout=FolderLayout(), samples_per_task=per_task), ("scan",)),
        Step("clean", cleaning, ("ingest",)),
        Step("encode", MapWork(step="encode", samples_from="clean", stages=(encode,)), ("clean",)),
    )
    return Graph("bench", Source(str(corpus)), steps)


def prepared(graph: Graph, executor: Executor, num_pictures: int) -> tuple[float, float]:
    """Make everything anew, check that every picture was kept, and return CPU and wall seconds."""
    root = tempfile.mkdtemp(dir=shared_memory())
    try:
        before, started = cpu_of_all(), time.perf_counter()
        done = Run(graph, root=root, executor=executor).run()
        spent, wall = cpu_of_all() - before, time.perf_counter() - started
        made = done["encode"].artifact
        kept = made.manifest.counts.kept
        assert kept == num_pictures, f"{kept} of {num_pictures} were kept"
        part = next(read_kept(made)).parts["jpg"]
        urls = {"clean": done["clean"].artifact.url, "encode": made.url}
        data = load_part(part, {"source": graph.source.url, **urls})
        side = max(simplejpeg.decode_jpeg_header(data)[:2])
        assert side in (SIDE, CONFORMING, *SMALL), f"the longer side of what came out has {side} px"
        return spent, wall
    finally:
        shutil.rmtree(root)


def ours(corpus: Path, clean: Sequence[Stage], encode: Stage, executor: Executor, num: int) -> Arm:
    """Return the arm that costs what the processor is busy for."""
    graph = data_graph(corpus, clean, encode)
    return lambda: prepared(graph, executor, num)[0]


def bare_loop(pictures: list[bytes]) -> Arm:
    """Return the arm that does without us."""

    def again() -> float:
        started = time.process_time()
        assert bare(pictures) > 0
        return time.process_time() - started

    return again


def against_bare(num_pictures: int) -> list[Row]:
    """Return pictures per second and core of a mix of sizes, through Ray with one worker."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        corpus = Path(scratch, "corpus")
        pictures = write_mix(corpus, num_pictures=num_pictures)
        executor = make_executor("ray", num_workers=1)
        try:
            taken = in_turns(
                {
                    "bare": bare_loop(pictures),
                    "by header": ours(corpus, BY_HEADER, ENCODED, executor, num_pictures),
                    "decoded": ours(corpus, DECODED, ENCODED, executor, num_pictures),
                },
                rounds=7,
            )
        finally:
            executor.close()
    names = {
        "by header": "ingest, clean (limits by the header), encode / bare loop, pictures/s/core",
        "decoded": "ingest, clean (decoded, measured, print), encode / bare loop, pictures/s/core",
    }
    return [_rate(names[arm], taken[arm], taken["bare"], num_pictures, goal=0.92) for arm in names]


def against_img2dataset(num_pictures: int | None) -> list[Row]:
    """Return the same beside img2dataset's resizer, of three widths and of what conforms."""
    try:
        python = environment("img2dataset", *IMG2DATASET)
    except NotInstalled as error:
        return [not_measured("against img2dataset 1.47.0", str(error))]
    rows: list[Row] = []
    executor = make_executor("ray", num_workers=1)
    try:
        for width, (goal, usual) in WIDTHS.items():
            num = num_pictures or usual
            print(f" {width} px, {num} pictures", file=sys.stderr)
            try:
                rows += _of_width(width, num, goal, executor, python)
            except Noisy as error:
                rows.append(not_measured(f"{width} px / img2dataset", str(error), goal=goal))
    finally:
        executor.close()
    return rows


def _of_width(width: int, num: int, goal: float, executor: Executor, python: str) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        corpus = Path(scratch, "corpus")
        pictures = write_pictures(corpus, num_pictures=num, width=width)
        found: list[Asked] = []

        def peer(side: int, **options: bool) -> Arm:
            asked = Asked(python, "-c", RESIZER, str(corpus), str(side), json.dumps(options))
            found.append(asked)

            def again() -> float:
                said = asked.ask()
                assert said["num"] == num
                assert said["size"][1] == side, f"img2dataset made {said['size']}"
                return float(said["seconds"])

            return again

        arms = {
            "bare": bare_loop(pictures),
            "ours": ours(corpus, BY_HEADER, ENCODED, executor, num),
            "img2dataset": peer(256, resize_only_if_bigger=False),
        }
        if width == CONFORMING:
            # of the shorter side, so that nothing is to be done
            passed = EncodeImage(fit="inside", side=width, pass_through=True, proof="markers")
            arms |= {
                "passed": ours(corpus, BY_HEADER, passed, executor, num),
                "img2dataset encodes": peer(width * 3 // 4, resize_only_if_bigger=False),
                "img2dataset skips": peer(
                    width * 3 // 4, resize_only_if_bigger=True, skip_reencode=True
                ),
            }
        try:
            taken = in_turns(arms, rounds=6)
        finally:
            for one in found:
                one.close()
    rows = [
        _rate(f"{width} px / bare loop, pictures/s/core", taken["ours"], taken["bare"], num),
        _peer(f"{width} px / img2dataset", taken["ours"], taken["img2dataset"], num, goal=goal),
    ]
    if width == CONFORMING:
        same = f"conforming JPEGs of {width} px / img2dataset"
        rows += [
            _peer(same, taken["passed"], taken["img2dataset encodes"], num, goal=20),
            _peer(f"{same}, skip_reencode", taken["passed"], taken["img2dataset skips"], num),
        ]
    return rows


def _rate(name: str, mine: Taken, other: Taken, num: int, goal: float | None = None) -> Row:
    return row(name, num / mine.median, num / other.median, goal=goal, better="higher",
               value=other.median / mine.median, note=interval(mine, other))  # fmt: skip


def _peer(name: str, mine: Taken, other: Taken, num: int, goal: float | None = None) -> Row:
    return row(name, num / mine.median, num / other.median, goal=goal, better="higher",
               value=other.median / mine.median, against="peer", note=interval(mine, other))  # fmt: skip
