"""Trainings of real ranks, killed and frozen at random steps, come to the bytes of one that was not.

Long: each trial starts groups of processes that load DeepSpeed.
"""

import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import disturbed_training
import processes
import pytest
from disturbed_training import CONFIG, SMOOTH_MODEL, Disturbed
from disturbing_loader import (
    DRIVER,
    FREEZE,
    KILL,
    PARENT,
    RANK,
    READER,
    STOP,
    Disturbance,
)
from shards import coloured_samples, write_inputs
from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs
from mmcore.executors import make_executor
from mmcore.train.export import export_model

TRIALS = int(os.environ.get("MM_FAULT_TRIALS", "1"))
LONG = replace(CONFIG, epochs=6)
NUM_STEPS_OF_LONG = 24
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": 34, "val": 5}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


@pytest.fixture(scope="module")
def undisturbed(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Disturbed]:
    """By stage of ZeRO."""
    made = {}
    for stage in (1,):
        config = replace(CONFIG, zero_stage=stage)
        directory = tmp_path_factory.mktemp("undisturbed") / "t"
        made[stage] = Disturbed(directory, inputs, TINY_MODEL, config)
        made[stage].run()
    return made


Long = Callable[[int], Disturbed]


@pytest.fixture(scope="module")
def long(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Long:
    """Return a training of some epochs at a stage of ZeRO that nobody disturbs."""

    @cache
    def steady(stage: int) -> Disturbed:
        config = replace(LONG, zero_stage=stage)  # type: ignore[arg-type]
        made = Disturbed(tmp_path_factory.mktemp("long") / "t", inputs, TINY_MODEL, config)
        made.run()
        return made

    return steady


def drawn_kills(draw: random.Random) -> list[Disturbance]:
    """Kills of a rank, of both or of a reader, two of them while a checkpoint is being written."""
    saving = draw.sample(range(2, NUM_STEPS_OF_LONG, 2), 2)
    training = draw.sample(range(1, NUM_STEPS_OF_LONG, 2), 3)
    kills = []
    for number, step in enumerate(sorted(saving + training)):
        rank = draw.randrange(2)
        kills.append(Disturbance(step, rank, victim=draw.choice((RANK, RANK, READER))))
        if number == 2:
            kills[-1] = replace(kills[-1], victim=RANK)
            kills.append(replace(kills[-1], rank=1 - rank))
    return kills


@pytest.mark.parametrize("trial", range(TRIALS))
def test_what_is_killed_at_five_random_steps_comes_to_the_same_bytes(
    trial: int, inputs: Inputs, long: Long, tmp_path: Path
) -> None:
    draw = random.Random(f"kill {trial}")
    stage = draw.choice((0, 1, 2, 3))
    kills = drawn_kills(draw)
    print(f"trial {trial}: stage {stage}, {kills}")
    steady = long(stage)
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL, steady.config)
    training.run(kills)
    assert training.results() == steady.results()
    assert training.loader().keys_read() == steady.loader().keys_read()
    assert sum(message.startswith("restart ") for message in training.messages) == 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_frozen_is_found_and_all_are_started_again(
    rank: int, inputs: Inputs, undisturbed: dict[int, Disturbed], tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL)
    training.run([Disturbance(step=5, rank=rank, signal=FREEZE)])
    assert training.results() == undisturbed[1].results()
    assert any(f"rank-{rank} has been silent" in message for message in training.messages)


def test_a_reader_that_is_frozen_is_found_and_all_are_started_again(
    inputs: Inputs, long: Long, tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL, LONG)
    # early: what it has read ahead is trained on first
    training.run([Disturbance(step=3, rank=1, signal=FREEZE, victim=READER)])
    steady = long(LONG.zero_stage)
    assert training.results() == steady.results()
    assert training.loader().keys_read() == steady.loader().keys_read()
    said = " ".join(training.messages)
    assert re.search(r"rank 1: the reader process \d+ of this rank has been silent", said)


def test_all_ranks_killed_at_once_are_started_again(
    inputs: Inputs, undisturbed: dict[int, Disturbed], tmp_path: Path
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL)
    training.run([Disturbance(step=3, rank=0), Disturbance(step=3, rank=1)])
    assert training.results() == undisturbed[1].results()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_from_two_ranks_to_one_to_four_it_comes_to_the_same_loss(
    stage: int, inputs: Inputs, tmp_path: Path
) -> None:
    config = replace(CONFIG, zero_stage=stage)  # type: ignore[arg-type]
    steady = Disturbed(tmp_path / "steady", inputs, SMOOTH_MODEL, config)
    steady.run()
    draw = random.Random(f"elastic {stage}")
    first = draw.randrange(3)
    stops = [Disturbance(first, draw.randrange(2), STOP), Disturbance(first + 3, 0, STOP)]
    print(stops)
    moved = Disturbed(tmp_path / "moved", inputs, SMOOTH_MODEL, config)
    moved.run(stops, num_ranks=(2, 1, 4))
    assert "written by 1 ranks, now 4" in " ".join(moved.messages)
    assert moved.loader().keys_read() == steady.loader().keys_read()
    assert moved.losses() == pytest.approx(steady.losses(), rel=1e-6, abs=2e-6)  # six digits


def test_a_checkpoint_of_any_stage_is_exported_as_the_same_model(
    inputs: Inputs, tmp_path: Path
) -> None:
    exported = []
    for stage in (1, 2, 3):
        config = replace(CONFIG, zero_stage=stage)  # type: ignore[arg-type]
        training = Disturbed(tmp_path / f"t{stage}", inputs, SMOOTH_MODEL, config)
        with pytest.raises(AssertionError, match="stopped more often"):
            training.run([Disturbance(step=4, rank=1, signal=STOP)])
        export_model(str(training.output), str(tmp_path / f"model{stage}"))
        exported.append(disturbed_training.load_file(tmp_path / f"model{stage}/model.safetensors"))
    for other in exported[1:]:
        for name, weight in exported[0].items():
            assert weight.allclose(other[name], rtol=1e-4, atol=1e-6), name


@pytest.fixture
def ray_path(monkeypatch: pytest.MonkeyPatch) -> None:
    support = str(Path(disturbed_training.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", processes.import_path(support))


@pytest.mark.parametrize("signal", [KILL, FREEZE])
def test_ray_train_starts_the_ranks_again(
    signal: int,
    inputs: Inputs,
    undisturbed: dict[int, Disturbed],
    tmp_path: Path,
    ray_path: None,
) -> None:
    executor = make_executor("ray", num_workers=2)
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL)
    try:
        training.run([Disturbance(step=3, rank=1, signal=signal)], executor=executor)
    finally:
        executor.close()
    assert training.results() == undisturbed[1].results()
    assert any(
        message.startswith("attempt 2 goes on from step 2 ") for message in training.messages
    )


@pytest.mark.parametrize(
    ("executor", "victim"), [("local", DRIVER), ("ray", DRIVER), ("ray", PARENT)]
)
def test_the_driver_or_the_raylet_is_killed_and_the_next_run_goes_on(
    executor: str,
    victim: str,
    inputs: Inputs,
    undisturbed: dict[int, Disturbed],
    tmp_path: Path,
) -> None:
    training = Disturbed(tmp_path / "t", inputs, TINY_MODEL)
    driver = training.start([Disturbance(step=5, rank=1, victim=victim)], executor=executor)
    try:
        said, _ = driver.communicate(timeout=900)
        print(said)
        processes.wait_until(
            lambda: not processes.with_text(training.mark), seconds=30, what="nobody is left"
        )
    finally:
        driver.kill()
        processes.kill(processes.with_text(training.mark))
    if driver.returncode:
        training.run()
        assert any("attempt 2 goes on from step " in message for message in training.messages)
    assert training.results() == undisturbed[1].results()
    assert training.loader().keys_read() == undisturbed[1].loader().keys_read()
