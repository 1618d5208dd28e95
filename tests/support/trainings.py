"""Trainings as the step `train` leaves them: curves, the clock, and a manifest at the end."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcore.core.manifest import Counts, Manifest, commit_manifest
from mmcore.core.rows import file_record
from mmcore.core.step import fingerprint_of
from mmcore.sample import Json

STEPS_PER_EPOCH = 10


def write_training(
    root: Path,
    *,
    name: str = "small",
    dataset: str = "0" * 64,
    epochs: int = 3,
    learning_rate: float = 0.01,
    is_committed: bool = True,
    is_metered: bool = False,
) -> str:
    """Write a training of so many epochs; return its fingerprint of 16 digits.

    `is_metered`: with the figures of the clock that trainings have told since they measure them.
    """
    work: dict[str, Json] = {
        "work": "mmcore.train.work.TrainWork",
        "train": {"epochs": epochs, "learning_rate": learning_rate, "global_batch_size": 16},
    }
    identity: dict[str, Json] = {"step": "train", "work": work, "inputs": {"shard": dataset}}
    fingerprint = fingerprint_of(identity)
    url = str(root / "steps" / name / "train" / fingerprint[:16])
    metrics, timing = _lines(epochs, learning_rate)
    if is_metered:
        timing = list(_metered(timing))
    files = (
        file_record(url, "metrics.jsonl", _jsonl(metrics)),
        file_record(url, "timing.jsonl", _jsonl(timing)),
    )
    if is_committed:
        facts: dict[str, Json] = {
            "num_parameters": 1234,
            "num_steps": epochs * STEPS_PER_EPOCH,
            "num_epochs": epochs,
            "num_train_samples": 160,
            "train_loss": metrics[-2]["loss"],
            "val_accuracy": metrics[-1]["val_accuracy"],
            "val_loss": metrics[-1]["val_loss"],
        }
        commit_manifest(url, Manifest("train", fingerprint, identity, Counts(), files, facts))
    return fingerprint[:16]


def _lines(epochs: int, learning_rate: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    metrics, timing = [], []
    for epoch in range(epochs):
        for step in range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH):
            loss = 2.0 * math.exp(-learning_rate * step) + 0.1 * math.cos(step)
            metrics.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "loss": round(loss, 6),
                    "lr": learning_rate,
                    "grad_norm": 1.0,
                    "samples": 16 * (step + 1),
                }
            )
        last = (epoch + 1) * STEPS_PER_EPOCH - 1
        held_out = {"val_loss": round(1.0 / (epoch + 1), 6), "val_accuracy": 0.5 + 0.1 * epoch}
        metrics.append({"step": last, "epoch": epoch, **held_out})
        timing.append({"epoch": epoch, "step": last, "train_seconds": 2.0, "validate_seconds": 0.5})
    return metrics, timing


def _metered(timing: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in timing:
        for part in (1, 2):
            pace = {
                "samples_per_second": 70.0 + 10 * part,
                "tokens_per_second": 800.0,
                "data_stall": 0.01 * part,
            }
            step = line["step"] - 5 * (2 - part)
            yield {"epoch": line["epoch"], "step": step, **pace, "memory_bytes": 2**28}
        yield {**line, **pace, "memory_bytes": [2**28, 2**29 + line["step"] * 2**20]}


def _jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
