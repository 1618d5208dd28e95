import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from shards import coloured_samples, write_inputs
from tiny_models import TINY_MODEL

from mmcore.core.step import Inputs, Progress, Task, TaskContext, Work
from mmcore.errors import ConfigError, StepError
from mmcore.executors.local import LocalExecutor
from mmcore.load.batches import MultimodalLoader
from mmcore.models.config import ModelConfig
from mmcore.models.saved import load_saved_model
from mmcore.sample import sha256_hex
from mmcore.train.config import TrainConfig
from mmcore.train.work import TrainWork

WORK = TrainWork(
    model=TINY_MODEL,
    train=TrainConfig(epochs=2, global_batch_size=6, learning_rate=0.01),
    loader=MultimodalLoader(image_side=32, num_mels=8, max_tokens=8),
)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(tmp_path / "inputs", coloured_samples({"train": 14, "val": 5}, side=32))


def context_of(inputs: Inputs, directory: Path, said: list[Progress]) -> TaskContext:
    return TaskContext(
        inputs=inputs,
        output_url=str(directory / "train"),
        root=str(directory),
        fingerprint="ab" * 32,
        executor=LocalExecutor(num_workers=2),
        report_progress=said.append,
    )


def test_two_ranks_train_and_the_report_names_every_file(inputs: Inputs, tmp_path: Path) -> None:
    said: list[Progress] = []
    context = context_of(inputs, tmp_path, said)
    (task,) = WORK.tasks(inputs)
    report = WORK.run(task, context)
    directory = Path(context.output_url)
    assert {r.path: r.sha256 for r in report.files} == {
        file.name: sha256_hex(file.read_bytes()) for file in directory.iterdir() if file.is_file()
    }
    assert {r.path for r in report.files} == {
        "events.out.tfevents.mm",
        "labels.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "timing.jsonl",
        "tokenizer.json",
    }
    assert report.facts["num_steps"] == 4
    assert WORK.finish([report], context).facts == report.facts
    assert load_saved_model(context.output_url).config == TINY_MODEL
    assert (said[-1].step, said[-1].done, said[-1].total) == ("train", 4, 4)


def test_a_ranks_failure_is_one_clear_error(inputs: Inputs, tmp_path: Path) -> None:
    table = Path(inputs["shard"].url) / "train" / "train-000000.tar"
    table.write_bytes(bytes(len(table.read_bytes())))
    work = replace(WORK, train=replace(WORK.train, engine="torch"), num_ranks=1)
    with pytest.raises(StepError, match=r"rank 0(.|\n)*holds other bytes"):
        work.run(Task("train"), context_of(inputs, tmp_path, []))


def test_it_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(WORK)) == WORK


def test_it_is_a_work() -> None:
    work: Work = WORK
    assert work.runs_in_driver
    assert [task.name for task in work.tasks(Inputs({}, {}))] == ["train"]


def test_the_identity_holds_what_decides_the_weights_and_no_placement() -> None:
    assert replace(WORK, num_ranks=3).identity() == WORK.identity()
    for changed in (
        replace(WORK, train=replace(WORK.train, seed=1)),
        replace(WORK, model=ModelConfig()),
        replace(WORK, loader=MultimodalLoader()),
    ):
        assert changed.identity() != WORK.identity()
    json.dumps(WORK.identity())


def test_a_choice_that_was_not_made_is_no_part_of_the_identity() -> None:
    identity = WORK.train.identity()
    for later in ("lora", "ema_decay", "micro_batch_size", "deepspeed_file", "offload_param"):
        assert later not in identity
    assert identity["zero_stage"] == 1
    assert replace(WORK.train, ema_decay=0.9).identity()["ema_decay"] == 0.9


def test_what_a_deepspeed_file_says_is_part_of_the_identity(tmp_path: Path) -> None:
    works = []
    for name, value in (("a", 1000), ("b", 1000), ("c", 2000)):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"zero_optimization": {"reduce_bucket_size": value}}))
        works.append(replace(WORK, train=replace(WORK.train, deepspeed_file=str(file))))
    first, second, third = (json.dumps(work.identity()) for work in works)
    assert first == second
    assert first != third


def test_a_file_that_contradicts_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text('{"train_batch_size": 32}')
    with pytest.raises(ConfigError, match=r"train_batch_size=32 and train\.global"):
        replace(WORK, train=replace(WORK.train, deepspeed_file=str(file)))


def test_ranks_that_cannot_share_the_batch_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="not divisible by 4 ranks"):
        replace(WORK, num_ranks=4)
