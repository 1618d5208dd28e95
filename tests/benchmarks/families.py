"""What the commands of the benchmarks have in common: options, noise, rows, a table in the end."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from subprocess import CalledProcessError

import cv2
from asked import ONE_THREAD
from figures import Row, not_measured, publish
from turns import Noisy, refuse_noise

from mmcore.errors import MmError

Family = Callable[[int | None], list[Row]]
"""From a size, or None for its own, to rows."""


def measure(
    description: str | None, families: Mapping[str, Family], more: Mapping[str, Family], name: str
) -> None:
    """Measure what the command line asks for, print a table, and write build/benchmarks/NAME.json.

    What is in `more` is measured when it is named.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = {**families, **more}
    parser.add_argument("--only", nargs="+", choices=list(known), metavar="NAME",
                        help=f"some of {', '.join(known)}")  # fmt: skip
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
    for one in options.only or families:
        print(f"{one} ...", file=sys.stderr)
        started = time.perf_counter()
        try:
            rows += known[one](options.num)
        except Noisy as error:
            rows.append(not_measured(one, f"refused: {error}"))
        except (AssertionError, MmError, OSError, RuntimeError, CalledProcessError) as error:
            traceback.print_exc()  # the other families are measured all the same
            rows.append(not_measured(one, f"failed: {error}".splitlines()[0][:160]))
        print(f"{one}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    publish(rows, f"{name}-tried" if options.noisy else name)
