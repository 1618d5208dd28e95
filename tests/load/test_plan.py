"""Real shards of any number and size, read by any number of ranks and threads."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import Stored, write_inputs

from mmcore.load.batches import MultimodalLoader

LABELS = ("blue", "green")


def captions(sizes: Sequence[int]) -> list[Stored]:
    """Return so many samples that are a caption and nothing else."""
    return [
        Stored(
            key=f"train-{number:05d}",
            split="train",
            parts={"txt": f"number {number}".encode()},
            meta={"label": LABELS[number % 2], "caption_group": str(number), "language": "en"},
        )
        for number in range(sum(sizes))
    ]


def check(sizes: Sequence[int], *, workers: int, num_ranks: int, per_rank: int, epoch: int) -> None:
    """Read an epoch on each rank: equal steps, nothing twice, nothing missing, one stream."""
    size = num_ranks * per_rank
    loader = MultimodalLoader(image_side=16, num_mels=8, max_tokens=6, workers=workers)
    with tempfile.TemporaryDirectory() as directory:
        inputs = write_inputs(Path(directory), captions(sizes), samples_per_shard=sizes)
        dataset = loader.open(inputs)

        def read(rank: int, of: int) -> list[list[str]]:
            batches = dataset.epoch(
                "train", seed=1, epoch=epoch, global_batch_size=size, rank=rank, num_ranks=of
            )
            return [list(batch.keys) for batch in batches]

        num_steps = dataset.num_steps("train", global_batch_size=size)
        by_rank = [read(rank, num_ranks) for rank in range(num_ranks)]
        alone = read(0, 1)
        dataset.close()
    assert num_steps == sum(sizes) // size
    assert [len(batches) for batches in by_rank] == [num_steps] * num_ranks
    assert all(len(batch) == per_rank for batches in by_rank for batch in batches)
    together = [[key for one in step for key in one] for step in zip(*by_rank, strict=True)]
    assert together == alone
    keys = [key for batch in together for key in batch]
    assert len(set(keys)) == len(keys) == num_steps * size > sum(sizes) - size


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=64)
PLAN = {
    "num_ranks": st.integers(1, 8),
    "per_rank": st.integers(1, 4),
    "epoch": st.integers(0, 50),
}


@settings(deadline=None, max_examples=40)
@given(sizes=SIZES, **PLAN)
def test_shards_of_any_sizes_give_any_ranks_equal_steps_and_nothing_twice(
    sizes: list[int], num_ranks: int, per_rank: int, epoch: int
) -> None:
    check(sizes, workers=0, num_ranks=num_ranks, per_rank=per_rank, epoch=epoch)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_any_number_of_workers_reads_the_same(workers: int) -> None:
    @settings(deadline=None, max_examples=2, database=None)
    @given(sizes=SIZES, **PLAN)
    def reads(sizes: list[int], num_ranks: int, per_rank: int, epoch: int) -> None:
        check(sizes, workers=workers, num_ranks=num_ranks, per_rank=per_rank, epoch=epoch)

    reads()
