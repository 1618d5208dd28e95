"""A training that was stopped anywhere and goes on is the one that never was."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from one_rank import CONFIG, NUM_STEPS_PER_EPOCH, after_looks, run, steps
from shards import coloured_samples, write_inputs

from mmcore.core.step import Inputs
from mmcore.errors import ConfigError
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.config import EarlyStopping

RESULTS = ("model.safetensors", "model.json", "metrics.jsonl", "labels.json", "tokenizer.json")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": 26, "val": 5}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def unstopped(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a training that was never stopped and wrote no checkpoint."""
    output = tmp_path_factory.mktemp("unstopped")
    none = CheckpointConfig(every_minutes=0, at_epoch_end=False)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
            patched.setenv(name, value)
        run(inputs, output, replace(CONFIG, checkpoint=none))
    assert not (output / "checkpoints").exists() or not steps(output)
    return {name: (output / name).read_bytes() for name in RESULTS}


def notes(reports: list[Mapping[str, Any]]) -> list[str]:
    return [report["message"] for report in reports if report["kind"] == "note"]


@pytest.mark.parametrize("looks", [1, 2, 4, 5, 6, 11])
def test_stopped_after_any_step_it_comes_to_the_same_bytes(
    looks: int, inputs: Inputs, tmp_path: Path, unstopped: dict[str, bytes]
) -> None:
    reports = run(inputs, tmp_path, should_stop=after_looks(looks))
    assert reports[-1]["kind"] == "stopped"
    assert not (tmp_path / "model.safetensors").exists()
    reached = reports[-1]["step"]
    assert steps(tmp_path)[0] == reached
    torch.rand(5)  # a new process has another generator
    reports = run(inputs, tmp_path)
    assert any(f"goes on from step {reached} " in note for note in notes(reports))
    for name, data in unstopped.items():
        assert (tmp_path / name).read_bytes() == data, name


def test_stopped_again_and_again_every_line_is_there_once(
    inputs: Inputs, tmp_path: Path, unstopped: dict[str, bytes]
) -> None:
    for _ in range(40):
        if run(inputs, tmp_path, should_stop=after_looks(2))[-1]["kind"] == "finished":
            break
    assert (tmp_path / "metrics.jsonl").read_bytes() == unstopped["metrics.jsonl"]
    assert (tmp_path / "model.safetensors").read_bytes() == unstopped["model.safetensors"]


def test_a_damaged_checkpoint_is_passed_over_by_name(
    inputs: Inputs, tmp_path: Path, unstopped: dict[str, bytes]
) -> None:
    run(inputs, tmp_path, should_stop=after_looks(6))
    newest, before = steps(tmp_path)[:2]
    file = tmp_path / "checkpoints" / f"step-{newest:08d}.1" / "rank-00000.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    said = notes(run(inputs, tmp_path))
    assert f"step-{newest:08d}.1/rank-00000.safetensors holds other bytes" in said[0]
    assert f"goes on from step {before} " in said[1]
    assert (tmp_path / "model.safetensors").read_bytes() == unstopped["model.safetensors"]


def test_checkpoints_come_every_so_many_steps_and_after_epochs(
    inputs: Inputs, tmp_path: Path
) -> None:
    keep_all = CheckpointConfig(every_steps=3, every_minutes=0, keep_last=100, keep_best=2)
    reports = run(inputs, tmp_path, replace(CONFIG, checkpoint=keep_all))
    written = set(steps(tmp_path))
    # one that is due while another is being written waits for the next step
    assert {NUM_STEPS_PER_EPOCH, 2 * NUM_STEPS_PER_EPOCH} <= written
    assert 3 * NUM_STEPS_PER_EPOCH not in written
    assert len(written) > 2
    paths = {record["path"] for record in reports[-1]["files"]}
    losses = {
        line["step"] + 1: line["val_loss"]
        for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if "val_loss" in line and line["epoch"] < 2
    }
    for step in losses:
        assert f"checkpoints/step-{step:08d}.1/manifest.json" in paths
    for record in reports[-1]["files"]:
        assert (tmp_path / record["path"]).stat().st_size == record["num_bytes"]


def test_early_stopping_remembers_across_a_stop(inputs: Inputs, tmp_path: Path) -> None:
    never_better = EarlyStopping(metric="val_loss", patience=2, min_delta=100.0)
    config = replace(CONFIG, epochs=6, early_stopping=never_better)
    first = run(inputs, tmp_path / "a", config)
    assert first[-1]["facts"]["num_epochs"] == 3
    run(inputs, tmp_path / "b", config, after_looks(10))
    second = run(inputs, tmp_path / "b", config)
    assert second[-1]["facts"] == first[-1]["facts"]


def test_a_figure_that_is_not_there_cannot_stop_training(inputs: Inputs, tmp_path: Path) -> None:
    config = replace(CONFIG, early_stopping=EarlyStopping(metric="val_accuracy_video", mode="max"))
    with pytest.raises(
        ConfigError, match=r"'val_accuracy_video' is not measured.*val_accuracy_text"
    ):
        run(inputs, tmp_path, config)
