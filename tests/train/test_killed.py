"""Ranks that die, freeze or are told to stop: training goes on by itself, to the same bytes."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
from disturbed_training import CONFIG, SMOOTH_MODEL, Disturbed
from disturbing_loader import READER, STOP, Disturbance
from shards import coloured_samples, write_inputs
from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": 34, "val": 5}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


@pytest.fixture(scope="module")
def unstopped(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    training = Disturbed(tmp_path_factory.mktemp("unstopped") / "t", inputs, TINY_MODEL)
    training.run()
    return training


def test_ranks_and_readers_that_are_killed_are_started_again_and_the_bytes_are_the_same(
    inputs: Inputs, unstopped: Disturbed, tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL)
    # a reader, which is ahead: it is missed when what it had read is used up, and not at once;
    # then the other rank, while the checkpoint of step 6 may be written
    training.run([Disturbance(step=1, rank=1, victim=READER), Disturbance(step=6, rank=0)])
    assert training.results() == unstopped.results()
    restarts = [message for message in training.messages if message.startswith("restart ")]
    assert len(restarts) == 2
    assert re.search(r"rank 1: the reader process \d+ of this rank died \(SIGKILL\)", restarts[0])
    assert "rank-0 died with exit code -9" in restarts[1]
    assert any(
        re.match(r"attempt 3 goes on from step [46] ", message) for message in training.messages
    )
    assert training.loader().keys_read() == unstopped.loader().keys_read()


def test_another_number_of_ranks_reads_the_same_samples_and_comes_to_the_same_loss(
    inputs: Inputs, tmp_path: Path
) -> None:
    config = replace(CONFIG, epochs=1)
    steady = Disturbed(tmp_path / "steady", inputs, SMOOTH_MODEL, config)
    steady.run()
    moved = Disturbed(tmp_path / "moved", inputs, SMOOTH_MODEL, config)
    moved.run([Disturbance(step=1, rank=1, signal=STOP)], num_ranks=(2, 1))
    assert (
        "attempt 2 goes on from step 2 (step-00000002.1, written by 2 ranks, now 1)"
        in moved.messages
    )
    assert moved.loader().keys_read() == steady.loader().keys_read()
    assert moved.losses() == pytest.approx(steady.losses(), rel=1e-6, abs=2e-6)  # six digits
    for name, weight in steady.weights().items():
        assert weight.allclose(moved.weights()[name], rtol=1e-4, atol=1e-6), name


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Any:
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()
    before = processes.children()
    yield
    processes.wait_until(
        lambda: processes.children() <= before, seconds=5, what="all children are gone"
    )
