import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from event_files import read_events
from shards import Stored, coloured_samples, write_inputs
from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, StepError
from mmcore.load.batches import MultimodalLoader
from mmcore.models.config import ModelConfig
from mmcore.models.saved import load_saved_model
from mmcore.train import telling
from mmcore.train.config import EarlyStopping, TrainConfig
from mmcore.train.loop import train
from mmcore.train.validation import to_tensors

LOADER = MultimodalLoader(image_side=32, num_mels=8, max_tokens=8)
CONFIG = TrainConfig(engine="torch", epochs=2, global_batch_size=6, learning_rate=0.01)
NUM_TRAIN = 26


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": NUM_TRAIN, "val": 9}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def run(
    inputs: Inputs,
    output: Path,
    config: TrainConfig = CONFIG,
    model: ModelConfig = TINY_MODEL,
) -> list[Mapping[str, Any]]:
    reports: list[Mapping[str, Any]] = []
    train(
        model_config=model,
        config=config,
        loader=LOADER,
        inputs=inputs,
        output_url=str(output),
        report=reports.append,
    )
    return reports


def lines(file: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_same_configuration_gives_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    torch.rand(3)  # whatever the process did before
    run(inputs, tmp_path / "first")
    run(inputs, tmp_path / "second")
    for name in ("model.safetensors", "model.json", "metrics.jsonl", "labels.json"):
        first, second = ((tmp_path / run / name).read_bytes() for run in ("first", "second"))
        assert first == second, name
    run(inputs, tmp_path / "third", replace(CONFIG, seed=1))
    assert (tmp_path / "third" / "model.safetensors").read_bytes() != first


def test_a_line_is_written_per_step_and_per_epoch(inputs: Inputs, tmp_path: Path) -> None:
    run(inputs, tmp_path)
    found = lines(tmp_path / "metrics.jsonl")
    steps = [line for line in found if "loss" in line]
    epochs = [line for line in found if "val_accuracy" in line]
    steps_per_epoch = NUM_TRAIN // 6
    assert [line["step"] for line in steps] == list(range(2 * steps_per_epoch))
    assert [line["samples"] for line in steps] == [6 * (i + 1) for i in range(2 * steps_per_epoch)]
    assert [(line["epoch"], line["step"]) for line in epochs] == [
        (0, steps_per_epoch - 1),
        (1, 2 * steps_per_epoch - 1),
    ]
    assert {"lr", "grad_norm", "class_text", "contrastive_image_audio"} <= steps[0].keys()


def test_the_clock_is_told_per_epoch_apart_from_what_can_be_repeated(
    inputs: Inputs, tmp_path: Path
) -> None:
    reports = run(inputs, tmp_path)
    epochs = [line for line in lines(tmp_path / "timing.jsonl") if "train_seconds" in line]
    assert [(line["epoch"], line["step"]) for line in epochs] == [(0, 3), (1, 7)]
    for line in epochs:
        assert line["samples_per_second"] > 0
        assert line["tokens_per_second"] > 0
        assert 0 <= line["data_stall"] <= 1
        assert line["memory_bytes"][0] > 2**20
    told = next(report["metrics"] for report in reports if report["kind"] == "epoch")
    assert {"samples_per_second", "data_stall", "grad_norm", "train_class_text", "val_loss"} <= set(
        told
    )


def test_the_steps_and_the_clock_are_in_a_file_for_tensorboard(
    inputs: Inputs, tmp_path: Path
) -> None:
    run(inputs, tmp_path)
    events = read_events((tmp_path / "events.out.tfevents.mm").read_bytes())
    losses = [(step, values["loss"]) for step, values in events if "loss" in values]
    steps = [line for line in lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert losses == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in steps]
    assert any("clock/samples_per_second" in values for _, values in events)
    assert any("val_accuracy" in values for _, values in events)


def test_no_clock_is_in_what_can_be_repeated(inputs: Inputs, tmp_path: Path) -> None:
    *_, finished = run(inputs, tmp_path)
    assert not [name for name in finished["facts"] if "second" in name or "time" in name]
    assert not any("seconds" in key for line in lines(tmp_path / "metrics.jsonl") for key in line)


def test_the_reports_tell_progress_epochs_and_at_last_the_files(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_TELL_SECONDS", 600.0)
    reports = run(inputs, tmp_path)
    # said by the thread that wrote it, whenever that was done
    assert "checkpoint" in [report["kind"] for report in reports]
    reports = [report for report in reports if report["kind"] != "checkpoint"]
    kinds = [report["kind"] for report in reports]
    assert kinds == ["epoch", "progress", "epoch", "progress", "finished"]
    assert reports[3]["done"] == reports[3]["total"] == 8
    written = {record["path"]: record["num_bytes"] for record in reports[-1]["files"]}
    assert written == {
        file.name: file.stat().st_size for file in tmp_path.iterdir() if file.is_file()
    }


def test_a_tiny_corpus_is_learnt_and_read_back(inputs: Inputs, tmp_path: Path) -> None:
    *_, finished = run(inputs, tmp_path, replace(CONFIG, epochs=30))
    assert finished["facts"]["val_accuracy"] > 0.9
    saved = load_saved_model(str(tmp_path))
    (batch,) = LOADER.open(inputs).in_order("val", batch_size=9)
    with torch.no_grad():
        logits = saved.model(to_tensors(batch, torch.device("cpu"))).logits["fused"]
    right = (logits.argmax(dim=1).numpy() == batch.arrays["label"]).mean()
    assert right == pytest.approx(finished["facts"]["val_accuracy"], abs=1e-6)
    fitted = dict(zip(saved.model.modalities, saved.model.fusion.weights.tolist(), strict=True))
    assert fitted == pytest.approx(finished["facts"]["fusion_weights"], abs=1e-5)
    assert fitted["image"] != 1.0
    assert saved.labels == ("blue", "green", "red")
    assert saved.preprocessing["image_side"] == 32


def test_the_model_directory_stands_alone(inputs: Inputs, tmp_path: Path) -> None:
    run(inputs, tmp_path)
    original = Path(inputs["tokenizer"].url) / "tokenizer.json"
    assert (tmp_path / "tokenizer.json").read_bytes() == original.read_bytes()
    assert json.loads((tmp_path / "labels.json").read_text()) == ["blue", "green", "red"]


def test_a_batch_larger_than_the_corpus_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"=64 is more than the 26 samples .* Use 26 or less"):
        run(inputs, tmp_path, replace(CONFIG, global_batch_size=64))


def test_a_loss_that_is_not_a_number_stops_the_run(inputs: Inputs, tmp_path: Path) -> None:
    wild = replace(CONFIG, learning_rate=1e30, max_grad_norm=0.0, epochs=5)
    with pytest.raises(StepError, match=r"training has diverged. Lower train.learning_rate"):
        run(inputs, tmp_path, wild)


def test_a_corpus_without_labels_is_refused(tmp_path: Path) -> None:
    samples = [
        Stored(s.key, s.split, s.parts, {}) for s in coloured_samples({"train": 8, "val": 2})
    ]
    with pytest.raises(StepError, match="no sample of the dataset has a label"):
        run(write_inputs(tmp_path / "data", samples), tmp_path / "model")


def test_training_ends_early_when_nothing_gets_better(inputs: Inputs, tmp_path: Path) -> None:
    stopping = EarlyStopping(metric="val_accuracy", mode="max", patience=1, min_delta=1.0)
    config = replace(CONFIG, epochs=5, early_stopping=stopping)
    *_, finished = run(inputs, tmp_path, config)
    assert finished["facts"]["num_epochs"] == 2
    epochs = [line["epoch"] for line in lines(tmp_path / "metrics.jsonl") if "val_loss" in line]
    assert epochs == [0, 1]


def test_turns_of_a_batch_learn_what_the_batch_does(inputs: Inputs, tmp_path: Path) -> None:
    model = replace(
        TINY_MODEL, image=None, dropout=0.0, loss=replace(TINY_MODEL.loss, contrastive_weight=0.0)
    )
    losses = []
    for size in (0, 2):
        config = replace(CONFIG, micro_batch_size=size, epochs=1)
        run(inputs, tmp_path / str(size), config, model)
        found = lines(tmp_path / str(size) / "metrics.jsonl")
        losses.append([line["loss"] for line in found if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # text drops out inside its encoder
    assert losses[0] != losses[1]


def test_precision_in_bfloat16_still_learns(inputs: Inputs, tmp_path: Path) -> None:
    config = replace(CONFIG, precision="bf16_autocast", epochs=8)
    first, last = (
        [line["loss"] for line in lines(tmp_path / "metrics.jsonl") if "loss" in line][at]
        for at in (0, -1)
        if at == -1 or run(inputs, tmp_path, config)
    )
    assert last < first
