"""Figures of the training plane: against bare loops, against others, and against theory.

    make bench-train
    make bench-train BENCH="--only loading seek"

Prints a table and writes build/benchmarks/train.json. A machine on which others are at work is
refused; --noisy tries out all the same, and then writes build/benchmarks/train-tried.json, which
nobody should take for figures.
"""

from families import Family, measure
from training_plane import checkpoints, engines, loading, peers

FAMILIES: dict[str, Family] = {
    "loading": lambda n: loading.loading(n or 1024),
    "loaders": lambda n: peers.against_peers(n or 1024),
    "seek": lambda n: loading.seek(n or 256),
    "checkpoints": lambda n: checkpoints.figures(n or 256 * 2**20),
    "engines": lambda n: engines.figures(n or 7),
}

if __name__ == "__main__":
    measure(__doc__, FAMILIES, {}, "train")
