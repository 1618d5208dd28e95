"""Checkpoints of a few tensors, each rank's part written by a writer of its own."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmcore.sample import Json
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.checkpoints.writer import CheckpointWriter, RankState, SharedState

FINGERPRINT = "ab" * 32
SHAPE = (4, 5)
WHOLE = torch.arange(20, dtype=torch.float32)
"""The parameter `weight`, which ranks share out between them."""


def store_in(directory: Path | str) -> CheckpointStore:
    return CheckpointStore(str(directory), fingerprint=FINGERPRINT)


def state_of(rank: int, num_ranks: int, step: int) -> RankState:
    """The share of a rank, as ZeRO cuts it: runs of one flat vector; the value tells the step."""
    first, last = (20 * at // num_ranks for at in (rank, rank + 1))
    piece = {
        "parameter": "weight",
        "shape": list(SHAPE),
        "start": first,
        "at": 3,
        "count": last - first,
    }
    layout: dict[str, Json] = {
        "is_shared": False,
        "kinds": ["master", "exp_avg"],
        "partitions": {"flat": [piece]},
    }
    tensors = {
        f"{kind}/flat": torch.cat([torch.zeros(3), WHOLE[first:last] * sign + step])
        for kind, sign in (("master", 1), ("exp_avg", -1))
    }
    return RankState(tensors=tensors, layout=layout, facts={"rank": rank})


def writers(
    directory: Path | str, *, num_ranks: int, config: CheckpointConfig | None = None
) -> list[CheckpointWriter]:
    """Begin an attempt; the last rank comes first, so that the first waits for nobody."""
    store = store_in(directory)
    attempt = store.begin_attempt({})
    config = config or CheckpointConfig()
    return [
        CheckpointWriter(store, config, rank=rank, num_ranks=num_ranks, attempt=attempt)
        for rank in reversed(range(num_ranks))
    ]


def write_steps(
    directory: Path | str,
    *steps: int,
    num_ranks: int = 2,
    config: CheckpointConfig | None = None,
    facts: Mapping[int, Mapping[str, Json]] | None = None,
) -> None:
    """Write checkpoints after each of some steps."""
    made = writers(directory, num_ranks=num_ranks, config=config)
    for step in steps:
        shared = SharedState(facts=(facts or {}).get(step, {}), files={"metrics.jsonl": b"{}\n"})
        for at, writer in enumerate(made):
            writer.save(step, state_of(num_ranks - 1 - at, num_ranks, step), shared)
        for writer in made:
            writer.wait()
    for writer in made:
        writer.close()
