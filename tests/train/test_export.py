"""A whole model out of a training, finished or not, or out of one of its checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import run_mm
from one_rank import CONFIG, after_looks, run, steps
from safetensors.torch import load_file
from shards import coloured_samples, write_inputs

from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError
from mmcore.models.saved import load_saved_model
from mmcore.train.checkpoints.config import CheckpointConfig
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.store import CheckpointStore
from mmcore.train.config import LoraConfig
from mmcore.train.engines import World, build_engine
from mmcore.train.export import export_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    samples = coloured_samples({"train": 26, "val": 5}, side=32)
    return write_inputs(tmp_path_factory.mktemp("train"), samples)


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def test_the_newest_sound_checkpoint_of_a_training_that_was_stopped_is_a_model(
    inputs: Inputs, tmp_path: Path
) -> None:
    run(inputs, tmp_path / "t", should_stop=after_looks(6))
    newest, before = steps(tmp_path / "t")[:2]
    exported = export_model(str(tmp_path / "t"), str(tmp_path / "newest"))
    assert exported.step == newest
    file = tmp_path / "t" / "checkpoints" / f"step-{newest:08d}.1" / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    exported = export_model(str(tmp_path / "t"), str(tmp_path / "before"))
    assert exported.step == before
    names = {"README.md", "labels.json", "model.json", "model.safetensors", "tokenizer.json"}
    assert {one.name for one in (tmp_path / "before").iterdir()} == names == set(exported.files)
    card = (tmp_path / "before" / "README.md").read_text()
    assert f"after {before} steps" in card
    assert str(tmp_path) not in card
    saved = load_saved_model(str(tmp_path / "before"))
    assert saved.labels == ("blue", "green", "red")
    with pytest.raises(ConfigError, match=r"could be exported \(step-.*holds other bytes"):
        export_model(str(file.parent), str(tmp_path / "none"))


def test_what_is_exported_are_the_weights_that_the_engine_would_give(
    inputs: Inputs, tmp_path: Path
) -> None:
    lora = LoraConfig(targets=("encoders.text.*.query",), rank=2)
    config = replace(CONFIG, freeze=("encoders.audio.*",), lora=lora)
    run(inputs, tmp_path / "t", config, should_stop=after_looks(6))
    found = CheckpointStore(str(tmp_path / "t")).committed()[0][0]
    export_model(found.url, str(tmp_path / "model"))
    exported = load_file(tmp_path / "model" / "model.safetensors")
    checkpoint = Checkpoint(found)
    saved = load_saved_model(str(tmp_path / "model"))
    torch.manual_seed(CONFIG.seed)
    model = type(saved.model)(saved.config, saved.model.shape)
    frozen = {n: p.clone() for n, p in model.named_parameters() if n.startswith("encoders.audio")}
    engine = build_engine(model, config, World(0, 1, 0))
    scalars = checkpoint.rank_facts(0)["scalars"]
    engine.load_state(checkpoint.tensors(0), scalars)  # type: ignore[arg-type]
    for name, weight in engine.weights().items():
        assert torch.equal(exported[name], weight), name
    assert not any("lora" in name for name in exported)
    assert frozen
    for name, weight in frozen.items():
        assert torch.equal(exported[name], weight), name


def test_a_finished_model_is_exported_with_one_command(inputs: Inputs, tmp_path: Path) -> None:
    keep = replace(CONFIG, checkpoint=CheckpointConfig(every_minutes=0, keep_best=1))
    *_, finished = run(inputs, tmp_path / "t", keep)
    files = tuple(FileRecord(**record) for record in finished["files"])
    manifest = Manifest("train", "", {}, Counts(), files, finished["facts"])
    commit_manifest(str(tmp_path / "t"), manifest)
    said = run_mm("export", str(tmp_path / "t"), str(tmp_path / "model"), "--json")
    assert said.code == 0, said.err
    assert said.json()["step"] == 12
    for name in ("model.safetensors", "model.json", "labels.json", "tokenizer.json"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "t" / name).read_bytes()
    (manifest_path,) = (one.path for one in files if one.path.endswith("/manifest.json"))
    best = str((tmp_path / "t" / manifest_path).parent)
    said = run_mm("export", best, str(tmp_path / "best"), "--json")
    assert said.code == 0, said.err
    assert f"step-{said.json()['step']:08d}." in best
    again = run_mm("export", best, str(tmp_path / "best"))
    assert again.code == 2
    assert "is not empty. Export to a directory that is new" in again.err


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    said = run_mm("export", "owls/3", str(tmp_path / "model"), "--root", str(tmp_path / "root"))
    assert said.code == 2
    assert "'owls/3' is no version of a model" in said.err
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x").touch()
    with pytest.raises(ConfigError, match=r"no training and no checkpoint .*\(there is none\)"):
        export_model(str(tmp_path / "empty"), str(tmp_path / "model"))
