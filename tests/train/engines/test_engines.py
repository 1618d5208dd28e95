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
from mmcore.train.config import LoraConfig, TrainConfig
from mmcore.train.engines import Engine, TorchEngine, World, build_engine
from mmcore.train.engines.optimizers import parameter_groups
from mmcore.train.turns import accumulate

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


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_every_stage_of_zero_trains_as_one_process_does(tmp_path: Path, num_ranks: int) -> None:
    reference = TorchEngine(tiny_model(COMPARABLE), TORCH, ALONE)
    expected_norms = run_steps(reference, ALONE)
    expected = reference.weights()
    LocalExecutor(num_workers=num_ranks).gang(
        train_at_every_stage,
        {"directory": str(tmp_path)},
        num_ranks=num_ranks,
        on_report=lambda _: None,
    )
    for stage in (0, 1, 2, 3):
        found = json.loads((tmp_path / f"stage-{stage}.json").read_text())
        assert found["weights"].keys() == expected.keys(), stage
        assert found["norms"][0] == pytest.approx(expected_norms[0], rel=1e-6), stage
        assert found["norms"] == pytest.approx(expected_norms, rel=1e-4), stage
        if num_ranks == 1:  # the same gradient, bit for bit
            assert found["norms"][0] == expected_norms[0], stage
        # Adam divides by small numbers: sums in another order move weights by this much. In one rank
        # it is the last elements of a tensor alone, which a processor steps one by one
        atol, rtol = (1e-7, 1e-5) if num_ranks == 1 else (2e-4, 1e-3)
        for name, values in found["weights"].items():
            torch.testing.assert_close(
                torch.tensor(values),
                expected[name].flatten(),
                atol=atol,
                rtol=rtol,
                msg=f"stage {stage}: {name}",
            )


def scale_the_loss(config: Mapping[str, Any]) -> Json:
    """What the rank of the test does: two steps that overflow, then some that do not."""
    world = World.from_environment()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    said = {}
    for stage in (0, 1, 2, 3):
        train = replace(TORCH, engine="deepspeed", zero_stage=stage, precision="fp16")
        engine = build_engine(tiny_model(COMPARABLE), train, world)
        before, batch, told = engine.weights(), random_batch(6), []
        for factor in (1e9, 1e9, *[1.0] * 12):
            loss = training_loss(engine.forward(batch), batch, LossConfig())["loss"]
            engine.backward(loss * factor)
            norm = engine.step(0.01)
            after = engine.weights()
            is_moved = any(not torch.equal(one, after[name]) for name, one in before.items())
            facts: Any = engine.scalars()
            told.append((norm, is_moved, facts["loss_scale"]["cur_scale"], float(loss)))
        said[stage] = told
        engine.close()
    Path(config["file"]).write_text(json.dumps(said))
    dist.destroy_process_group()
    return None


def test_a_step_whose_scaled_loss_overflows_is_left_out_and_the_scale_lowered(
    tmp_path: Path,
) -> None:
    file = tmp_path / "said.json"
    LocalExecutor().gang(scale_the_loss, {"file": str(file)}, num_ranks=1, on_report=lambda _: None)
    for stage, told in json.loads(file.read_text()).items():
        norms, moved, scales, losses = zip(*told, strict=True)
        assert norms[:2] == (float("inf"), float("inf")), stage
        assert not any(moved[:2]), stage
        assert scales[1] < 2**16, stage
        assert 0.1 < norms[-1] < 100, stage  # of the gradient itself, without the scale
        assert moved[-1], stage
        assert losses[-1] < losses[0], stage


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


def test_the_machine_that_has_too_little_memory_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmcore.train.engines.available_host_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"weights with train.zero_stage=0.* are free"):
        build_engine(tiny_model(COMPARABLE), replace(TORCH, zero_stage=0), ALONE)


def test_turns_of_a_batch_have_the_gradient_of_the_batch() -> None:
    model = replace(COMPARABLE, loss=LossConfig(contrastive_weight=0.0))
    norms = []
    for size in (0, 2):
        config = replace(TORCH, micro_batch_size=size)
        engine = TorchEngine(tiny_model(model), config, ALONE)
        losses = accumulate(engine, model, config, ALONE, random_batch(6))
        norms.append((losses["loss"], engine.step(0.01)))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_what_lora_learnt_is_in_the_weights_under_the_names_of_the_model() -> None:
    lora = LoraConfig(targets=("encoders.text.*.query",), rank=2)
    config = replace(TORCH, lora=lora, freeze=("encoders.*",))
    model = tiny_model(COMPARABLE)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    engine = build_engine(model, config, ALONE)
    run_steps(engine, ALONE)
    after = engine.weights()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    encoders = {name for name in changed if name.startswith("encoders.")}
    assert encoders == {name for name in after if name.endswith("query.weight")}


def test_recomputed_activations_give_the_same_steps() -> None:
    found = []
    for recomputes in (False, True):
        config = replace(TORCH, recomputes_activations=recomputes)
        engine = build_engine(tiny_model(COMPARABLE), config, ALONE)
        found.append((run_steps(engine, ALONE), engine.weights()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(one, found[1][1][name]) for name, one in found[0][1].items())


def test_a_model_that_cannot_recompute_is_refused() -> None:
    config = replace(TORCH, recomputes_activations=True)
    with pytest.raises(ConfigError, match="no encoder of the model can compute"):
        build_engine(tiny_model(replace(TINY_MODEL, text=None, audio=None)), config, ALONE)
