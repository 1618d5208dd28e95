"""Figures of the spine: start-up, a run with nothing to do, and the model over three seeds.

    make bench                                    # start-up and the run with nothing to do
    make bench BENCH="--corpus PATH --seeds 3"    # and the model: trains three times

Interleaved, the first round dropped, medians of at least seven; ratios, not seconds, are compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from figures import REPOSITORY, Row, publish, row

DATA_RECIPE = "configs/recipes/generated_data.yaml"
STAMPS_RECIPE = "configs/recipes/stamps_tiny_cpu.yaml"
ROUNDS = 8
IMPORTS = (
    "import mmcore.cli.dispatch, mmcore.cli.run, mmcore.recipe.build; "
    "from mmcore.recipe.components import *; "
    "[find_class(name, ()) for name in SHORT_NAMES if not name.startswith('multi')]"
)


def seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    """Return the wall time of a command."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, cwd=REPOSITORY)
    return time.perf_counter() - started


def interleaved(
    commands: dict[str, Sequence[str]], environment: dict[str, str]
) -> dict[str, float]:
    """Return the median seconds of each command."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            found[name].append(seconds(command, environment))
    return {name: median(times[1:]) for name, times in found.items()}


def start_up() -> list[Row]:
    """Measure `mm --help`, and a run that has nothing to do."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus, root = f"{scratch}/corpus", f"{scratch}/root"
        environment = os.environ | {"MM_CORPUS": corpus, "MM_ROOT": root, "OMP_NUM_THREADS": "1"}
        mm = [sys.executable, "-m", "mmcore"]
        for arguments in (["corpus", "make", corpus, "--samples", "300"], ["run", DATA_RECIPE]):
            subprocess.run([*mm, *arguments], env=environment, check=True, cwd=REPOSITORY,
                           capture_output=True)  # fmt: skip
        times = interleaved(
            {
                "pass": [sys.executable, "-c", "pass"],
                "help": [str(Path(sys.executable).parent / "mm"), "--help"],
                "imports": [sys.executable, "-c", IMPORTS],
                "no-op": [*mm, "run", DATA_RECIPE, "--json"],
            },
            environment,
        )
    beyond = times["no-op"] - times["imports"]
    return [
        row("mm --help / python -c pass", times["help"], times["pass"], goal=4, better="lower",
            value=times["help"] / times["pass"]),
        row("mm run with nothing to do, seconds beyond imports", times["no-op"], times["imports"],
            goal=1, better="lower", value=beyond),
    ]  # fmt: skip


def model(corpus: str, root: str, num_seeds: int, recipe_overrides: Sequence[str]) -> list[Row]:
    """Train with several seeds, each with a split of its own, and average what was found."""
    environment = os.environ | {"MM_CORPUS": corpus, "MM_ROOT": root}
    facts = []
    for seed in range(num_seeds):
        command = [sys.executable, "-m", "mmcore", "run", STAMPS_RECIPE, "--executor", "ray", "--json",
                   "--set", f"seed={seed}", *recipe_overrides]  # fmt: skip
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, cwd=REPOSITORY)
        if done.returncode not in (0, 4):
            sys.exit(f"seed {seed} failed")
        found = json.loads(done.stdout)["metrics"]
        facts.append(found)
        alone = found["accuracy_by_modality"]
        ratios = {
            name: round(figures["recall_at_10"] / figures["chance_at_10"], 2)
            for name, figures in found["retrieval"].items()
        }
        print(f"seed {seed}: accuracy {found['accuracy']:.3f}, macro F1 {found['macro_f1']:.3f}, "
              f"majority {found['majority_accuracy']:.3f}, alone {alone}, R@10/chance {ratios}, "
              f"{time.perf_counter() - started:.0f} s", file=sys.stderr)  # fmt: skip
    accuracy = fmean(found["accuracy"] for found in facts)
    best = fmean(max(found["accuracy_by_modality"].values()) for found in facts)
    rows = [
        row("fused accuracy, mean over seeds", accuracy, 0.78, goal=0.78, better="higher", value=accuracy),
        row("error below the best single modality's, share", 1 - accuracy, 1 - best, goal=0.10,
            better="higher", value=1 - (1 - accuracy) / (1 - best)),
    ]  # fmt: skip
    for direction in facts[0]["retrieval"]:
        recall = fmean(found["retrieval"][direction]["recall_at_10"] for found in facts)
        chance = fmean(found["retrieval"][direction]["chance_at_10"] for found in facts)
        rows.append(row(f"R@10 {direction} / chance", recall, chance, goal=3, better="higher",
                        value=recall / chance))  # fmt: skip
    return rows


def main() -> None:
    """Measure, print a table, and write build/benchmarks/spine.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", help="the stamps corpus; without it no model is trained")
    parser.add_argument("--root", default="build/benchmarks/spine-root", help="storage root")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=C")
    options = parser.parse_args()
    overrides = [word for override in options.overrides for word in ("--set", override)]
    rows = start_up()
    if options.corpus:
        corpus = os.path.abspath(options.corpus)
        rows += model(corpus, os.path.abspath(options.root), options.seeds, overrides)
    publish(rows, "spine")


if __name__ == "__main__":
    main()
