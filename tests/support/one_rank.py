"""Trainings of one rank in this process, stopped after as many steps as a test likes."""

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs
from mmcore.load.batches import MultimodalLoader
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.config import TrainConfig
from mmcore.train.loop import train

LOADER = MultimodalLoader(image_side=32, num_mels=8, max_tokens=8)
NUM_STEPS_PER_EPOCH = 4
CONFIG = TrainConfig(
    engine="torch",
    epochs=3,
    global_batch_size=6,
    learning_rate=0.01,
    ema_decay=0.9,
    checkpoint=CheckpointConfig(every_steps=3, every_minutes=0),
)


def run(
    inputs: Inputs,
    output: Path,
    config: TrainConfig = CONFIG,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Mapping[str, Any]]:
    reports: list[Mapping[str, Any]] = []
    train(
        model_config=TINY_MODEL,
        config=config,
        loader=LOADER,
        inputs=inputs,
        output_url=str(output),
        report=reports.append,
        should_stop=should_stop,
    )
    return reports


def after_looks(number: int) -> Callable[[], bool]:
    """Say yes when asked for the N-th time: once after each step, but for the last of all."""
    looks = count(1)
    return lambda: next(looks) >= number


def steps(output: Path) -> list[int]:
    found, _ = CheckpointStore(str(output), fingerprint="").committed()
    return [one.id.step for one in found]
