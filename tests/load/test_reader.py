import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shards import Stored, coloured_samples, write_inputs

from mmcore.core.loader import Batch
from mmcore.core.step import Inputs
from mmcore.errors import IntegrityError, RanksLost, StepError
from mmcore.load import reader as reader_module
from mmcore.load.batches import MultimodalLoader, OpenMultimodal
from mmcore.load.reader import ReaderProcess

SAMPLES = coloured_samples({"train": 23, "val": 3})
LOADER = MultimodalLoader(image_side=16, num_mels=8, max_tokens=6, pack_tokens=12)
READER = "mmcore.load.reader_process"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("reader"), SAMPLES)


@pytest.fixture
def dataset(inputs: Inputs) -> Iterator[OpenMultimodal]:
    dataset = LOADER.open(inputs)
    yield dataset
    dataset.close()


def stream(dataset: OpenMultimodal, *, epoch: int = 0, first_step: int = 0, rank: int = 0) -> Iterator[Batch]:  # fmt: skip
    return dataset.epoch(
        "train",
        seed=5,
        epoch=epoch,
        global_batch_size=4,
        rank=rank,
        num_ranks=2,
        first_step=first_step,
    )


def equal(first: Batch, second: Batch) -> bool:
    return list(first.keys) == list(second.keys) and all(
        array.dtype == second.arrays[name].dtype
        and array.shape == second.arrays[name].shape
        and (array == second.arrays[name]).all()
        for name, array in first.arrays.items()
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_a_reader_process_gives_the_same_batches_bit_for_bit(inputs: Inputs, workers: int) -> None:
    # without part of what a slot held before: rows that lack something must be zeros
    bare = [
        Stored(s.key, s.split, {n: d for n, d in s.parts.items() if i % 3 or n == "txt"}, s.meta)
        for i, s in enumerate(SAMPLES)
    ]
    lacking = write_inputs(Path(inputs["shard"].url).parent / f"lacking-{workers}", bare)
    here = replace(LOADER, workers=0).open(lacking)
    there = replace(LOADER, workers=workers).open(lacking)
    for epoch in range(3):
        for first, second in zip(
            stream(here, epoch=epoch), stream(there, epoch=epoch), strict=True
        ):
            assert equal(first, second)
    assert here.reader_pid is None
    assert there.reader_pid is not None
    there.close()


def test_batches_that_somebody_collects_stay_as_they_were(dataset: OpenMultimodal) -> None:
    collected = list(stream(dataset)) + list(stream(dataset, epoch=1))
    again = [batch for epoch in (0, 1) for batch in stream(dataset, epoch=epoch)]
    assert all(equal(first, second) for first, second in zip(collected, again, strict=True))


def test_arrays_of_a_batch_lie_in_the_ring_and_its_slot_is_free_when_they_are_gone(
    dataset: OpenMultimodal,
) -> None:
    batches = stream(dataset)
    first = next(batches)
    assert dataset._ahead is not None
    reader = dataset._ahead.maker
    assert isinstance(reader, ReaderProcess)
    assert not first.arrays["image"].flags.owndata
    assert reader._ring._num_held == 1
    del first
    assert reader._ring._num_held == 0


def test_it_reads_no_further_ahead_than_there_are_slots(dataset: OpenMultimodal) -> None:
    batches = stream(dataset)
    next(batches)
    assert dataset._ahead is not None
    assert isinstance(dataset._ahead.maker, ReaderProcess)
    assert dataset._ahead.maker._num_asked <= LOADER.num_slots


def test_going_on_elsewhere_leaves_nothing_of_the_place_before(dataset: OpenMultimodal) -> None:
    expected = list(stream(dataset, epoch=3))
    batches = stream(dataset, epoch=0)
    next(batches)
    rest = list(stream(dataset, epoch=3, first_step=2))
    assert [list(batch.keys) for batch in rest] == [list(b.keys) for b in expected[2:]]
    assert all(equal(first, second) for first, second in zip(rest, expected[2:], strict=True))


def test_two_streams_of_one_dataset_do_not_mix(dataset: OpenMultimodal) -> None:
    alone = [list(stream(dataset, rank=rank)) for rank in (0, 1)]
    together = list(zip(stream(dataset, rank=0), stream(dataset, rank=1), strict=True))
    for step, batches in enumerate(together):
        assert all(equal(batch, alone[rank][step]) for rank, batch in enumerate(batches))


def test_what_was_waited_for_is_said(dataset: OpenMultimodal) -> None:
    batches = stream(dataset)
    first = next(batches)
    assert first.seconds_waited > 0.05, "a process had to start"
    time.sleep(0.3)
    assert next(batches).seconds_waited < first.seconds_waited


def test_a_reader_that_is_killed_is_an_error_by_name_at_once(dataset: OpenMultimodal) -> None:
    batches = stream(dataset)
    next(batches)
    pid = dataset.reader_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(StepError, match=rf"reader process {pid} of this rank died \(SIGKILL\)"):
        list(batches)
    assert time.monotonic() - started < 10


def test_a_reader_that_is_frozen_is_found_and_ended_and_one_that_is_slow_is_waited_for(
    dataset: OpenMultimodal, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(stream(dataset))
    monkeypatch.setattr(reader_module, "_LOOK_SECONDS", 0.2)
    pid = dataset.reader_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.7, os.kill, (pid, signal.SIGCONT)).start()
    # more than it has read ahead
    assert [len(list(stream(dataset, epoch=epoch))) for epoch in range(4)] == [5] * 4
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RanksLost, match=rf"reader process {pid} of this rank has been silent"):
        [list(stream(dataset, epoch=epoch)) for epoch in range(4, 8)]
    dataset.close()
    assert not Path(f"/proc/{pid}").exists()


def test_what_it_cannot_read_is_the_same_error_as_in_the_trainer(tmp_path: Path) -> None:
    samples = coloured_samples({"train": 8})
    inputs = write_inputs(tmp_path, samples)
    shard = tmp_path / "dataset" / "train" / "train-000001.tar"
    data = bytearray(shard.read_bytes())
    data[data.index(samples[6].parts["jpg"]) + 40] ^= 1
    shard.write_bytes(data)
    said = []
    for workers in (0, 1):
        dataset = replace(LOADER, workers=workers).open(inputs)
        with pytest.raises(IntegrityError, match=r"train-000001.tar holds other bytes") as error:
            list(stream(dataset))
        said.append(str(error.value))
        dataset.close()
    assert said[0] == said[1]
    assert "train-006" in said[0]


def test_close_ends_the_process(dataset: OpenMultimodal) -> None:
    next(stream(dataset))
    pid = dataset.reader_pid
    assert pid is not None
    dataset.close()
    assert not Path(f"/proc/{pid}").exists()


TRAINER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from shards import coloured_samples, write_inputs
from mmcore.load.batches import MultimodalLoader
inputs = write_inputs(Path(sys.argv[1]), coloured_samples({"train": 8, "val": 1}))
dataset = MultimodalLoader(image_side=16, num_mels=8).open(inputs)
batches = dataset.epoch("train", seed=0, epoch=0, global_batch_size=2, rank=0, num_ranks=1)
next(batches)
print(dataset.reader_pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_its_trainer_and_has_nothing_to_say(tmp_path: Path) -> None:
    support = str(Path(__file__).parents[1] / "support")
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tmp_path), support],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    assert READER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    time.sleep(0.5)  # answers have come that nobody will read
    trainer.kill()
    assert trainer.communicate() == ("", "")
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_larger_batch_gets_larger_slots(dataset: OpenMultimodal) -> None:
    arguments = {"seed": 0, "epoch": 0, "rank": 0, "num_ranks": 1}
    sizes = [
        {len(b.keys) for b in dataset.epoch("train", global_batch_size=size, **arguments)}
        for size in (2, 20, 3)
    ]
    assert sizes == [{2}, {20}, {3}]


def test_the_longest_batch_fits_a_slot(tmp_path: Path) -> None:
    """Captions and sounds as long as they may be, made longer by augmentation."""
    samples = [
        replace_text(sample, "word " * 60) for sample in coloured_samples({"train": 6}, side=16)
    ]
    inputs = write_inputs(tmp_path, samples)
    loader = replace(LOADER, max_seconds=0.05, max_tokens=12)
    dataset = loader.open(inputs)
    (batch,) = dataset.epoch("train", seed=0, epoch=0, global_batch_size=6, rank=0, num_ranks=1)
    assert batch.arrays["text_mask"].sum() > 6
    used = sum(-(-array.nbytes // 64) * 64 for array in batch.arrays.values())
    assert used < loader.decoding.batch_bytes(6)
    dataset.close()


def replace_text(sample: Stored, text: str) -> Stored:
    return replace(sample, parts={**sample.parts, "txt": text.encode()})


def test_packed_captions_are_those_of_the_batch(dataset: OpenMultimodal) -> None:
    for batch in stream(dataset):
        ids, segment = batch.arrays["packed_ids"], batch.arrays["packed_segment"]
        for row in range(len(batch.keys)):
            mask = batch.arrays["text_mask"][row]
            assert list(ids[segment == row + 1]) == list(batch.arrays["text_ids"][row][mask])
        assert np.count_nonzero(segment) == batch.arrays["text_mask"].sum()
