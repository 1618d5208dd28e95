"""Whole pipelines from start to end, two cores: ours through Ray, Daft, Ray Data.

All read the same JPEGs, decode them, make the longer side 341 px, encode at quality 95 and write the
bytes to Parquet or to our blobs. Starting up is part of it. Daft: its native runner, images decoded,
resized and encoded by its own expressions. Ray Data: `read_binary_files` and `map_batches` with
OpenCV, which is faster than its `read_images`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from asked import DAFT, ONE_THREAD, NotInstalled, environment
from figures import REPOSITORY, Row, not_measured, row
from turns import shared_memory

from data_plane.pictures import SIDE, write_pictures

WIDTH = 500
HEIGHT = 256
RECIPE = """\
name: pictures
source: {{path: {corpus}, layout: {{use: folder}}, samples_per_task: 250}}
clean: {{max_megapixels: , min_side: }}
split: {{together: [image]}}
encode: {{encode_image: {{fit: inside, side: {side}, subsampling: "420"}}}}
"""
DAFT_CODE = f"""
import sys, daft
from daft import col
daft.set_runner_native()
corpus, output = sys.argv[1:]
pictures = daft.from_glob_path(corpus + "/*.jpg")
data = col("path").download().decode_image(mode="RGB")
pictures = pictures.with_column("jpg", daft.functions.resize(data, {SIDE}, {HEIGHT}).encode_image("jpeg"))
pictures.select("path", "jpg").write_parquet(output)
"""
RAY_DATA_CODE = f"""
import sys, logging, cv2, numpy as np, ray
corpus, output = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
def encoded(batch):
    cv2.setNumThreads(1)
    found = []
    for data in batch["bytes"]:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(pixels, ({SIDE}, {HEIGHT}), interpolation=cv2.INTER_AREA)
        found.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return {{"path": batch["path"], "jpg": np.array(found, dtype=object)}}
pictures = ray.data.read_binary_files(corpus, include_paths=True)
pictures.map_batches(encoded, batch_size=64).write_parquet(output)
"""


def against_engines(num_pictures: int, rounds: int) -> list[Row]:
    """Return the seconds from start to end, each engine in turn."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        corpus = Path(scratch, "corpus")
        write_pictures(corpus, num_pictures=num_pictures, width=WIDTH)
        recipe = Path(scratch, "recipe.yaml")
        recipe.write_text(RECIPE.format(corpus=corpus, side=SIDE))
        output = Path(scratch, "output")
        mm = [sys.executable, "-m", "mmcore", "run", str(recipe), "--root", str(output)]
        ray_data = [sys.executable, "-c", RAY_DATA_CODE, str(corpus), str(output)]
        commands = {
            "ours": [*mm, "--executor", "ray", "--workers", "2", "--until", "encode"],
            "Ray Data": ray_data,
        }
        missing: dict[str, str] = {}
        try:
            python = environment("daft", *DAFT)
            commands["Daft"] = [python, "-c", DAFT_CODE, str(corpus), str(output)]
        except NotInstalled as error:
            missing["Daft"] = str(error)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in list(commands.items()):
                check = _check_ours if name == "ours" else _check_table
                try:
                    seconds[name].append(_timed(command, output, num_pictures, check))
                except subprocess.CalledProcessError as error:
                    missing[name] = f"failed: {error.stderr.strip().splitlines()[-1]:.120}"
                    del commands[name]
                print(f"  {name}: {seconds[name]}", file=sys.stderr)
    rows = []
    size = f"{num_pictures:,} pictures of {WIDTH} px, start-up included, seconds"
    for name, goal in (("Daft", 3.0), ("Ray Data", 5.0)):
        title = f"{size} / {name}"
        if name in missing or "ours" in missing:
            why = missing.get(name) or missing["ours"]
            rows.append(not_measured(title, why, goal=goal))
            continue
        mine, theirs = median(seconds["ours"]), median(seconds[name])
        note = f"{rounds} round{'s' * (rounds > 1)}"
        rows.append(row(title, mine, theirs, goal=goal, better="higher", value=theirs / mine,
                        against="peer", note=note))  # fmt: skip
    return rows


def _timed(command: list[str], output: Path, num: int, check: Callable[[Path], int]) -> float:
    shutil.rmtree(output, ignore_errors=True)  # of one that failed
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True,
                   env=os.environ | ONE_THREAD | {"PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    seconds = time.perf_counter() - started
    found = check(output)
    assert found == num, f"{command[0]} made {found} of {num} pictures"
    return seconds


def _check_ours(output: Path) -> int:
    tables = list(output.glob("steps/pictures/encode/*/part-*.parquet"))
    return sum(pq.read_metadata(one).num_rows for one in tables)


def _check_table(output: Path) -> int:
    tables = list(output.rglob("*.parquet"))
    data = pq.read_table(tables[0], columns=["jpg"])["jpg"][0].as_py()
    assert data[:3] == b"\xff\xd8\xff", "no JPEG came out"
    return sum(pq.read_metadata(one).num_rows for one in tables)
