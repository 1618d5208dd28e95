"""What a second worker brings, as a share of what a second bare process brings.

Walls, not seconds of the processor. One worker has one core with its driver and all of Ray; two have
two. Everything is started, and has worked once, before a clock runs.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
from asked import asked_of_us
from figures import Row, not_measured, row
from turns import Arm, in_turns, shared_memory

from data_plane.pictures import bare, write_mix
from mmcore.executors.children import die_with_parent

NUM_TASKS = 8


def figures(num_pictures: int) -> list[Row]:
    """Return the gain of the second worker beside that of the second process."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    name = "gain of a second worker / gain of a second bare process"
    if len(cores) < 2:
        return [not_measured(name, "this machine has one core", goal=0.97)]
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch, ExitStack() as stack:
        corpus = Path(scratch, "corpus")
        write_mix(corpus, num_pictures=num_pictures)

        def arm(kind: str, num: int) -> Arm:
            own = frozenset(cores[:num])
            process = asked_of_us("data_plane.workers", kind, str(corpus), str(num), cores=own)
            stack.callback(process.close)
            return lambda: float(process.ask()["seconds"])

        arms = {f"{kind} {num}": arm(kind, num) for num in (1, 2) for kind in ("bare", "ours")}
        taken = in_turns(arms, rounds=7, steady="bare 1")
    ours, others = (
        taken[f"{kind} 1"].median / taken[f"{kind} 2"].median for kind in ("ours", "bare")
    )
    return [row(name, ours, others, goal=0.97, better="higher", value=ours / others)]


def main() -> None:
    """Work through the corpus whenever asked, with so many workers or processes."""
    kind, corpus, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    work = _ours(corpus, num) if kind == "ours" else _bare(corpus, num)
    for _ in sys.stdin:
        print(json.dumps({"seconds": work()}), flush=True)


def _ours(corpus: Path, num: int) -> Arm:
    from data_plane.images import BY_HEADER, ENCODED, data_graph, prepared
    from mmcore.executors import make_executor

    executor = make_executor("ray", num_workers=num)
    many = len(list(corpus.iterdir()))
    graph = data_graph(corpus, BY_HEADER, ENCODED, per_task=max(1, many // NUM_TASKS))
    return lambda: prepared(graph, executor, many)[1]


def _bare(corpus: Path, num: int) -> Arm:
    pictures = [path.read_bytes() for path in sorted(corpus.iterdir())]
    slices = [pictures[number::num] for number in range(num)]
    pool = multiprocessing.get_context("spawn").Pool(num, _hold, (slices,))

    def again() -> float:
        started = time.perf_counter()
        assert all(pool.map(_decode, range(num), chunksize=1))
        return time.perf_counter() - started

    return again


_held: list[list[bytes]] = []


def _hold(slices: list[list[bytes]]) -> None:
    die_with_parent()
    cv2.setNumThreads(1)
    _held[:] = slices


def _decode(number: int) -> int:
    return bare(_held[number])


if __name__ == "__main__":
    main()
