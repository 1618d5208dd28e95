"""Trainings over real ranks, disturbed or not, and what they left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import processes
import torch
import training_driver
from disturbing_loader import Disturbance, DisturbingLoader
from safetensors.torch import load_file
from tiny_models import TINY_AUDIO, TINY_TEXT

from mmcore.core.executor import Executor
from mmcore.core.step import Inputs, Progress, TaskContext, TaskReport
from mmcore.errors import RunCancelled
from mmcore.executors.local import LocalExecutor
from mmcore.load.batches import MultimodalLoader
from mmcore.models.config import ModelConfig
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.config import TrainConfig
from mmcore.train.work import TrainWork

# without batch statistics and dropout, of which each rank has its own
SMOOTH_MODEL = ModelConfig(
    image=None,
    text=replace(
        TINY_TEXT,
        options={
            **TINY_TEXT.options,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    audio=TINY_AUDIO,
    embedding_dim=8,
    dropout=0.0,
)
CONFIG = TrainConfig(
    epochs=2,
    global_batch_size=8,
    learning_rate=0.01,
    checkpoint=CheckpointConfig(every_steps=2, every_minutes=0),
)
RESULTS = ("model.safetensors", "model.json", "metrics.jsonl", "labels.json")


@dataclass
class Disturbed:
    """A training that is run to its end, stopped and begun again as often as it takes."""

    directory: Path
    inputs: Inputs
    model: ModelConfig
    config: TrainConfig = CONFIG
    pause: float = 0.0
    """Seconds before each batch."""

    def __post_init__(self) -> None:
        (self.directory / "notes").mkdir(parents=True, exist_ok=True)
        self.said: list[Progress] = []
        self.output = self.directory / "steps" / "train"

    def loader(self, disturbances: Sequence[Disturbance] = ()) -> DisturbingLoader:
        return DisturbingLoader(
            inner=MultimodalLoader(image_side=32, num_mels=8, max_tokens=8),
            directory=str(self.directory / "notes"),
            disturbances=tuple(disturbances),
            pause=self.pause,
        )

    def run(
        self,
        disturbances: Sequence[Disturbance] = (),
        *,
        num_ranks: Sequence[int] = (2,),
        min_ranks: int = 0,
        executor: Executor | None = None,
    ) -> TaskReport:
        """Run with the first number of ranks; after each stop go on with the next one."""
        loader = self.loader(disturbances)
        for number in num_ranks:
            work = TrainWork(
                model=self.model,
                train=self.config,
                loader=loader,
                num_ranks=number,
                min_ranks=min_ranks,
            )
            context = TaskContext(
                inputs=self.inputs,
                output_url=str(self.output),
                root=str(self.directory),
                fingerprint="ab" * 32,
                executor=executor or LocalExecutor(num_workers=2),
                report_progress=self.said.append,
            )
            try:
                return work.run(work.tasks(self.inputs)[0], context)
            except RunCancelled:
                continue
        raise AssertionError("it was stopped more often than it was started")

    @property
    def mark(self) -> str:
        """What all processes of a driver of its own have in their environment."""
        return f"MM_TEST_TRAINING={self.directory}"

    def start(
        self,
        disturbances: Sequence[Disturbance] = (),
        *,
        executor: str = "local",
        num_ranks: int = 2,
        min_ranks: int = 0,
        start: Callable[..., Any] = subprocess.Popen,
    ) -> "subprocess.Popen[str]":
        """Begin in a process of its own, which says line by line what it does."""
        told = {
            "directory": str(self.directory),
            "executor": executor,
            "num_ranks": num_ranks,
            "min_ranks": min_ranks,
            "epochs": self.config.epochs,
            "pause": self.pause,
            "disturbances": [asdict(one) for one in disturbances],
            "inputs": {
                name: [one.url, [asdict(file) for file in one.manifest.files]]
                for name, one in self.inputs.artifacts.items()
            },
        }
        support = str(Path(training_driver.__file__).parent)
        name, _, value = self.mark.partition("=")
        process: subprocess.Popen[str] = start(
            [sys.executable, training_driver.__file__, json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": processes.import_path(support),
                "RAY_worker_niceness": "0",
                name: value,
            },
        )
        return process

    @property
    def messages(self) -> list[str]:
        return [progress.message for progress in self.said]

    def results(self) -> dict[str, bytes]:
        return {name: (self.output / name).read_bytes() for name in RESULTS}

    def losses(self) -> list[float]:
        lines = map(json.loads, (self.output / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.output / "model.safetensors")
