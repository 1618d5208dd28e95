"""Figures of the data plane: against bare work, against others, and against itself when it grows.

    make bench-data                                              # about 25 minutes on two cores
    make bench-data BENCH="--only shards unchanged"
    make bench-data BENCH="--only dedup --samples 1000000"

Prints a table and writes build/benchmarks/data.json. Peers get environments of their own below
.mm/peers. A machine on which others are at work is refused; --noisy tries out all the same, and then
writes build/benchmarks/data-tried.json, which nobody should take for figures.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from subprocess import CalledProcessError

import cv2
from data_plane import (
    cleaning,
    duplicates,
    engines,
    growth,
    images,
    memory,
    rules,
    shards,
    unchanged,
    workers,
)
from data_plane.asked import ONE_THREAD
from data_plane.turns import Noisy, refuse_noise
from figures import Row, not_measured, publish

from mmcore.errors import MmError

Family = Callable[[int | None], list[Row]]
FAMILIES: dict[str, Family] = {
    "images": lambda n: images.against_bare(n or 300),
    "img2dataset": images.against_img2dataset,
    "engines": lambda n: engines.against_engines(n or 20_000, rounds=1 if not n else 3),
    "shards": lambda n: shards.figures(n or 5_000),
    "workers": lambda n: workers.figures(n or 400),
    "dedup": lambda n: duplicates.figures(n or 10_000_000),
    "growth": lambda n: growth.figures(n or 20_000),
    "unchanged": lambda n: unchanged.figures(n or 1_000_000),
    "memory": lambda n: memory.figures(n or memory.NUM_PICTURES),
}
MORE: dict[str, Family] = {
    "cleaning": lambda n: cleaning.figures(n or 60),
    "rules": lambda n: rules.figures(n or 100_000),
    "dedup-peers": lambda n: duplicates.peers(n or 10_000_000),
}
"""Not among the goals: measured when they are named."""


def main() -> None:
    """Measure, print a table, and write build/benchmarks/data.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES, *MORE], metavar="NAME",
                        help=f"some of {', '.join([*FAMILIES, *MORE])}")  # fmt: skip
    parser.add_argument("--samples", "--pictures", type=int, dest="num", metavar="N",
                        help="instead of each family's own number")  # fmt: skip
    parser.add_argument("--noisy", action="store_true", help="whatever else the machine does")
    parser.add_argument("--rounds", type=int, help="of each comparison, the first one dropped")
    options = parser.parse_args()
    os.environ.update(ONE_THREAD)
    if options.noisy:
        os.environ["MM_BENCH_NOISY"] = "1"
    if options.rounds:
        os.environ["MM_BENCH_ROUNDS"] = str(max(3, options.rounds))
    cv2.setNumThreads(1)
    refuse_noise()
    rows: list[Row] = []
    for name in options.only or FAMILIES:
        print(f"{name} ...", file=sys.stderr)
        started = time.perf_counter()
        try:
            rows += {**FAMILIES, **MORE}[name](options.num)
        except Noisy as error:
            rows.append(not_measured(name, f"refused: {error}"))
        except (AssertionError, MmError, OSError, RuntimeError, CalledProcessError) as error:
            traceback.print_exc()  # the other families are measured all the same
            rows.append(not_measured(name, f"failed: {error}".splitlines()[0][:160]))
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    publish(rows, "data-tried" if options.noisy else "data")


if __name__ == "__main__":
    main()
