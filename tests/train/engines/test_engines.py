import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TINY_MODEL, random_batch, tiny_model
from torch import distributed as dist

from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.models.config import LossConfig
from mmcore.models.losses import training_loss
from mmcore.sample import Json
from mmcore.train.config import TrainConfig
from mmcore.train.engines import Engine, TorchEngine, World, build_engine
from mmcore.train.engines.optimizers import parameter_groups

ALONE = World(rank=0, num_ranks=1, local_rank=0)
# no batch statistics and no dropout: what is left must not depend on the number of ranks
COMPARABLE = replace(
    TINY_MODEL,
    image=None,
    dropout=0.0,
    text=replace(
        TINY_MODEL.text,  # type: ignore[type-var]
        options={
            **TINY_MODEL.text.options,
            "hidden_dropout_prob": 0.0,  # type: ignore[union-attr]
            "attention_probs_dropout_prob": 0.0,
        },
    ),
)
NUM_STEPS = 3
TORCH = TrainConfig(engine="torch", global_batch_size=6, max_grad_norm=0.5)


def run_steps(engine: Engine, world: World) -> list[float]:
    """Train a few steps on this rank's rows; return the norms of the gradients."""
    norms = []
    per_rank = 6 // world.num_ranks
    rows = slice(world.rank * per_rank, (world.rank + 1) * per_rank)
    for step in range(NUM_STEPS):
        batch = {name: array[rows] for name, array in random_batch(6, seed=step).items()}
        output = engine.forward(batch)
        loss = training_loss(
            output, batch, LossConfig(), gather=engine.gather, num_ranks=world.num_ranks
        )["loss"]
        engine.backward(loss)
        norms.append(engine.step(0.01))
    return norms


def train_at_every_stage(config: Mapping[str, Any]) -> Json:
    """What each rank of the test does: the same steps at every stage of ZeRO."""
    world = World.from_environment()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for stage in (0, 1, 2, 3):
        engine = build_engine(
            tiny_model(COMPARABLE), replace(TORCH, engine="deepspeed", zero_stage=stage), world
        )
        norms = run_steps(engine, world)
        weights = engine.weights()
        if world.rank == 0:
            values = {name: tensor.flatten().tolist() for name, tensor in weights.items()}
            file = Path(config["directory"]) / f"stage-{stage}.json"
            file.write_text(json.dumps({"norms": norms, "weights": values}))
        engine.close()
    dist.destroy_process_group()
    return None


def test_a_step_changes_weights_along_the_shortened_gradient() -> None:
    engine = TorchEngine(tiny_model(COMPARABLE), TORCH, ALONE)
    before = engine.weights()
    before = {name: tensor.clone() for name, tensor in before.items()}
    norms = run_steps(engine, ALONE)
    assert all(norm > 0.5 for norm in norms)
    after = engine.weights()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_two_ranks_at_every_stage_of_zero_train_as_one_process_does(tmp_path: Path) -> None:
    reference = TorchEngine(tiny_model(COMPARABLE), TORCH, ALONE)
    expected_norms = run_steps(reference, ALONE)
    expected = reference.weights()
    LocalExecutor(num_workers=2).gang(
        train_at_every_stage,
        {"directory": str(tmp_path)},
        num_ranks=2,
        on_report=lambda _: None,
    )
    for stage in (0, 1, 2, 3):
        found = json.loads((tmp_path / f"stage-{stage}.json").read_text())
        assert found["weights"].keys() == expected.keys(), stage
        if stage > 0:  # DeepSpeed tells no norm at stage 0
            assert found["norms"] == pytest.approx(expected_norms, rel=1e-4), stage
        for name, values in found["weights"].items():
            # Adam divides by small numbers: sums in another order move weights by this much
            torch.testing.assert_close(
                torch.tensor(values),
                expected[name].flatten(),
                atol=2e-4,
                rtol=1e-3,
                msg=f"stage {stage}: {name}",
            )


def test_vectors_have_no_weight_decay() -> None:
    model = tiny_model()
    matrices, vectors = parameter_groups(model, weight_decay=0.1)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in matrices["params"])
    assert all(parameter.ndim <= 1 for parameter in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_frozen_weights_are_not_trained() -> None:
    model = tiny_model()
    model.encoders["text"].requires_grad_(False)
    trained = [p for group in parameter_groups(model, weight_decay=0.1) for p in group["params"]]
    assert len(trained) < len(list(model.parameters()))
    assert all(parameter.requires_grad for parameter in trained)


def test_a_process_that_is_no_rank_says_how_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(
        ConfigError, match=r"RANK is not set.*through an executor, or with torchrun"
    ):
        World.from_environment()


def test_the_world_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert World.from_environment() == World(rank=3, num_ranks=8, local_rank=1)
