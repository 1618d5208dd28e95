"""Figures of the data plane: against bare work, against others, and against itself when it grows.

    make bench-data                                              # about half an hour on two cores
    make bench-data BENCH="--only shards unchanged"
    make bench-data BENCH="--only dedup --samples 1000000"

Prints a table and writes build/benchmarks/data.json. Peers get environments of their own below
.mm/peers. A machine on which others are at work is refused; --noisy tries out all the same, and then
writes build/benchmarks/data-tried.json, which nobody should take for figures.
"""

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
from families import Family, measure

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


if __name__ == "__main__":
    measure(__doc__, FAMILIES, MORE, "data")
