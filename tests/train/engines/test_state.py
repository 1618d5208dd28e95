"""States of training: kept and put back at one world size, and shared out anew at another."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import TINY_MODEL, random_batch, tiny_model
from torch import Tensor
from torch import distributed as dist

from mmcore.errors import IntegrityError
from mmcore.executors.local import LocalExecutor
from mmcore.models.config import ModelConfig
from mmcore.sample import Json
from mmcore.train.config import LoraConfig, TrainConfig
from mmcore.train.engines import Engine, World, build_engine
from mmcore.train.engines.state import ReadSlice, whole_reader
from mmcore.train.turns import accumulate

ALONE = World(rank=0, num_ranks=1, local_rank=0)
TEXT_ONLY = replace(TINY_MODEL, image=None, audio=None)
BATCH = 8
CONFIG = TrainConfig(global_batch_size=BATCH, max_grad_norm=0.5, ema_decay=0.9)


def steps(
    engine: Engine, config: TrainConfig, model: ModelConfig, world: World, which: Sequence[int]
) -> list[float]:
    """Train on this rank's rows of numbered batches; return losses and norms."""
    said = []
    per_rank = BATCH // world.num_ranks
    rows = slice(world.rank * per_rank, (world.rank + 1) * per_rank)
    engine.evaluating(is_evaluating=False)
    for step in which:
        own = {name: array[rows] for name, array in random_batch(BATCH, seed=step).items()}
        losses = accumulate(engine, model, config, world, own)
        said += [losses["loss"], engine.step(0.01)]
    return said


def kept(engine: Engine, directory: Path, rank: int) -> None:
    tensors = {name: one.clone().contiguous() for name, one in engine.named_state().items()}
    save_file(tensors, directory / f"rank-{rank}.safetensors")
    facts = {"layout": engine.layout(), "scalars": engine.scalars()}
    (directory / f"rank-{rank}.json").write_text(json.dumps(facts))


def facts_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(f.read_text()) for f in sorted(directory.glob("rank-*.json"))]


def reader_of(directory: Path) -> ReadSlice:
    facts = facts_of(directory)
    files = [load_file(directory / f"rank-{rank}.safetensors") for rank in range(len(facts))]

    def read(rank: int, tensor: str, start: int, count: int) -> Tensor:
        return files[rank][tensor].flatten()[start : start + count]

    return whole_reader([one["layout"] for one in facts], read)


def whole(directory: Path) -> dict[str, Tensor]:
    """Return every kind of every parameter, joined from all ranks."""
    read, (first, *_) = reader_of(directory), facts_of(directory)
    shapes = {
        piece["parameter"]: torch.Size(piece["shape"])
        for one in facts_of(directory)
        for pieces in one["layout"]["partitions"].values()
        for piece in pieces
    }
    return {
        f"{kind}/{name}": read(kind, name, 0, shape.numel()).view(shape)
        for kind in first["layout"]["kinds"]
        for name, shape in shapes.items()
    }


def interrupted_and_not(config: Mapping[str, Any]) -> Json:
    """What each rank does: go on in the same engine, and in a fresh one from what was kept."""
    world = World.from_environment()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    said = {}
    for name, (model, train) in config["cases"].items():
        directory = Path(config["directory"]) / name
        directory.mkdir(exist_ok=True)
        engine = build_engine(tiny_model(model), train, world)
        steps(engine, train, model, world, range(2))
        kept(engine, directory, world.rank)
        expected = steps(engine, train, model, world, range(2, 5))
        expected_state = {k: v.clone() for k, v in engine.named_state().items()}
        expected_scalars = engine.scalars()
        engine.close()
        torch.rand(7)  # whatever the process did before it was killed
        # what is frozen comes with the model, and is in no checkpoint
        fresh = build_engine(tiny_model(model, seed=0 if train.freeze else 9), train, world)
        tensors = load_file(directory / f"rank-{world.rank}.safetensors")
        facts = json.loads((directory / f"rank-{world.rank}.json").read_text())["scalars"]
        fresh.load_state(tensors, facts)
        found = steps(fresh, train, model, world, range(2, 5))
        state = fresh.named_state()
        fresh_scalars = fresh.scalars()
        same = {k: torch.equal(v, expected_state[k]) for k, v in state.items()}
        fresh.close()
        said[name] = {
            "same_figures": found == expected,
            "same_scalars": fresh_scalars == expected_scalars,
            "different": [k for k, equal in same.items() if not equal],
            "names": len(state) == len(expected_state),
        }
    (Path(config["directory"]) / f"said-{world.rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()
    return None


def converted(config: Mapping[str, Any]) -> Json:
    """What each rank does: fill itself from another world's state, and keep that again."""
    world = World.from_environment()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for stage in (0, 1, 2, 3):
        train = replace(CONFIG, zero_stage=stage, micro_batch_size=2)
        source = Path(config["source"]) / f"zero-{stage}"
        target = Path(config["target"]) / f"zero-{stage}"
        target.mkdir(parents=True, exist_ok=True)
        engine = build_engine(tiny_model(TEXT_ONLY, seed=9), train, world)
        if source.exists():
            layout = facts_of(source)[0]
            engine.load_full_state(reader_of(source), layout["layout"]["kinds"], layout["scalars"])
        else:
            steps(engine, train, TEXT_ONLY, world, range(3))
        kept(engine, target, world.rank)
        steps(engine, train, TEXT_ONLY, world, [3])  # it goes on
        engine.close()
    dist.destroy_process_group()
    return None


def from_torch_to_zero(config: Mapping[str, Any]) -> Json:
    """What each rank does: rank 0 trains alone with plain torch, all go on under ZeRO."""
    world = World.from_environment()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    source = Path(config["directory"]) / "torch"
    train = replace(CONFIG, engine="torch")
    if world.rank == 0:
        source.mkdir()
        reference = build_engine(tiny_model(TEXT_ONLY), train, ALONE)
        steps(reference, train, TEXT_ONLY, ALONE, range(2))
        kept(reference, source, 0)
    dist.barrier()
    layout = facts_of(source)[0]
    for stage in (0, 1, 2, 3):
        train = replace(CONFIG, zero_stage=stage)
        directory = Path(config["directory"]) / f"zero-{stage}"
        directory.mkdir(exist_ok=True)
        engine = build_engine(tiny_model(TEXT_ONLY, seed=9), train, world)
        engine.load_full_state(reader_of(source), layout["layout"]["kinds"], layout["scalars"])
        kept(engine, directory, world.rank)
        engine.close()
    dist.destroy_process_group()
    return None


def gang(function: Any, num_ranks: int, **config: Any) -> None:
    LocalExecutor(num_workers=num_ranks).gang(
        function, config, num_ranks=num_ranks, on_report=lambda _: None
    )


def other_cases() -> dict[str, tuple[ModelConfig, TrainConfig]]:
    cases = {}
    cases["bf16"] = (TEXT_ONLY, replace(CONFIG, zero_stage=2, precision="bf16", ema_decay=0.0))
    cases["bf16-0"] = (TEXT_ONLY, replace(CONFIG, zero_stage=0, precision="bf16"))
    cases["bf16-3"] = (TEXT_ONLY, replace(CONFIG, zero_stage=3, precision="bf16"))
    cases["lion"] = (TEXT_ONLY, replace(CONFIG, optimizer="lion"))
    cases["sgd"] = (TEXT_ONLY, replace(CONFIG, zero_stage=3, optimizer="sgd", micro_batch_size=2))
    cases["offloaded"] = (TEXT_ONLY, replace(CONFIG, zero_stage=2, offload_optimizer=True))
    cases["offloaded-3"] = (
        TEXT_ONLY,
        replace(CONFIG, zero_stage=3, offload_optimizer=True, offload_param=True),
    )
    cases["recomputing"] = (
        TEXT_ONLY,
        replace(CONFIG, zero_stage=3, recomputes_activations=True),
    )
    lora = LoraConfig(targets=("*.query",), rank=2)
    cases["lora"] = (TEXT_ONLY, replace(CONFIG, zero_stage=3, freeze=("encoders.*",), lora=lora))
    frozen = ("encoders.text.backbone.embeddings.*",)
    cases["frozen"] = (TEXT_ONLY, replace(CONFIG, zero_stage=3, freeze=frozen))
    return cases


@pytest.mark.parametrize("num_ranks", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_fresh_engine_goes_on_bit_for_bit_at_every_stage(tmp_path: Path, num_ranks: int) -> None:
    cases = {f"zero-{stage}": (TINY_MODEL, replace(CONFIG, zero_stage=stage)) for stage in range(4)}
    if num_ranks == 2:
        cases |= other_cases()
    gang(interrupted_and_not, num_ranks, directory=str(tmp_path), cases=cases)
    for rank in range(num_ranks):
        said = json.loads((tmp_path / f"said-{rank}.json").read_text())
        assert said == {
            name: {"same_figures": True, "same_scalars": True, "different": [], "names": True}
            for name in cases
        }


def test_from_two_ranks_to_one_to_four_nothing_changes(tmp_path: Path) -> None:
    before = ""
    for num_ranks in (2, 1, 4):
        target = str(tmp_path / str(num_ranks))
        gang(converted, num_ranks, source=before or str(tmp_path / "none"), target=target)
        before = target
    for stage in (0, 1, 2, 3):
        states = [whole(tmp_path / str(n) / f"zero-{stage}") for n in (2, 1, 4)]
        assert {"master", "exp_avg", "exp_avg_sq", "ema"} == {n.split("/")[0] for n in states[0]}
        names = {name for name, _ in tiny_model(TEXT_ONLY).named_parameters()}
        assert {n.split("/", 1)[1] for n in states[0]} == names
        for other in states[1:]:
            assert other.keys() == states[0].keys()
            for name, tensor in states[0].items():
                assert torch.equal(tensor, other[name]), (stage, name)
        steps_taken = facts_of(tmp_path / "4" / f"zero-{stage}")[3]["scalars"]["steps"]
        assert set(steps_taken.values()) == {3.0}


def test_a_stage_reads_what_another_stage_wrote(tmp_path: Path) -> None:
    gang(from_torch_to_zero, 2, directory=str(tmp_path))
    reference = whole(tmp_path / "torch")
    for stage in (0, 1, 2, 3):
        found = whole(tmp_path / f"zero-{stage}")
        assert found.keys() == reference.keys()
        assert all(torch.equal(found[name], reference[name]) for name in found), stage


def test_a_state_of_another_model_is_refused_and_changes_nothing() -> None:
    train = replace(CONFIG, engine="torch")
    engine = build_engine(tiny_model(TEXT_ONLY), train, ALONE)
    saved = {name: one.clone() for name, one in engine.named_state().items()}
    name = next(name for name in saved if name.endswith("weight"))
    lacking = {k: v + 1 for k, v in saved.items() if k != name}
    with pytest.raises(IntegrityError, match=f"lacks {name}.*another|lacks {name}"):
        engine.load_state(lacking, engine.scalars())
    with pytest.raises(IntegrityError, match=r"has the shape \(3,\) in the saved state"):
        engine.load_state({**saved, name: torch.zeros(3)}, engine.scalars())
    assert all(torch.equal(one, saved[k]) for k, one in engine.named_state().items())


def test_a_part_that_is_missing_among_the_ranks_is_an_error() -> None:
    piece = {"parameter": "w", "shape": [4], "start": 0, "at": 0, "count": 2}
    layout = {"is_shared": False, "partitions": {"0": [piece]}}
    read = whole_reader(
        [layout], lambda _rank, _name, start, count: torch.arange(start, start + count)
    )
    assert read("master", "w", 1, 1).tolist() == [1]
    with pytest.raises(IntegrityError, match="holds w to element 2 and 4 were wanted"):
        read("master", "w", 0, 4)
    with pytest.raises(IntegrityError, match="no parameter v"):
        read("master", "v", 0, 4)


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept() -> None:
    train = replace(CONFIG, engine="torch", ema_decay=0.5)
    engine = build_engine(tiny_model(TEXT_ONLY), train, ALONE)
    steps(engine, train, TEXT_ONLY, ALONE, range(6))
    name = "heads.text.classify.weight"
    state = {kind: engine.named_state()[f"{kind}/{name}"].clone() for kind in ("master", "ema")}
    assert not torch.equal(state["master"], state["ema"])
    batch = random_batch(4)
    own = engine.forward(batch).logits["text"]
    engine.evaluating(is_evaluating=True)
    averaged = engine.forward(batch).logits["text"]
    assert not torch.equal(own, averaged)
    assert torch.equal(engine.weights()[name], state["ema"])
    engine.evaluating(is_evaluating=False)
    assert torch.equal(engine.named_state()[f"master/{name}"], state["master"])
