"""A whole model as files for anybody, from what a training has made or from a checkpoint of it.

A checkpoint of any engine, stage of ZeRO and number of ranks is put together in one process.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load as tensors_from_bytes

from mmcore import storage
from mmcore.core.manifest import Manifest, load_manifest
from mmcore.errors import ConfigError, IntegrityError
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import (
    DESCRIPTION_NAME,
    WEIGHTS_NAME,
    empty_model,
    load_saved_model,
    model_files,
)
from mmcore.sample import sha256_hex
from mmcore.train.beside import CONFIG_NAME, FROZEN_NAME, LABELS_NAME, TOKENIZER_NAME
from mmcore.train.checkpoints.reading import Checkpoint
from mmcore.train.checkpoints.store import DIRECTORY, CheckpointId, CheckpointStore, Found
from mmcore.train.config import TrainConfig
from mmcore.train.engines import World, build_engine

CARD_NAME = "README.md"
_ALONE = World(rank=0, num_ranks=1, local_rank=0)
_OF_ONE_PROCESS: dict[str, Any] = {
    "engine": "torch",
    "zero_stage": 1,
    "precision": "fp32",
    "offload_optimizer": False,
    "offload_param": False,
    "recomputes_activations": False,
    "deepspeed_file": "",
    "micro_batch_size": 0,
}
"""What says where tensors lie while a model is trained, and nothing about the model."""


@dataclass(frozen=True)
class Exported:
    """What was written, and out of what."""

    source: str
    """A model's directory, or that of a checkpoint."""
    step: int
    """Optimizer steps that the weights have behind them."""
    files: dict[str, str]
    """SHA-256 by name."""


def export_model(url: str, directory: str, *, card: str = "") -> Exported:
    """Write the model that lies at a URL to a directory, and read it back.

    The URL is that of a training, finished or not, or of one of its checkpoints. Of a training that
    is not finished the newest checkpoint that verifies is taken. `card` stands in place of a card
    that says where the model comes from.
    """
    if storage.list_files(directory):
        raise ConfigError(f"{directory} is not empty. Export to a directory that is new.")
    manifest = load_manifest(url)
    if manifest is not None and any(file.path == WEIGHTS_NAME for file in manifest.files):
        files, step, source = _of_model(url, manifest), int(_number(manifest, "num_steps")), url
    else:
        checkpoint = _checkpoint_at(url)
        files, source = _of_checkpoint(checkpoint), checkpoint.found.url
        step = checkpoint.found.id.step
    files[CARD_NAME] = (card or _card(source, step, files)).encode()
    for name, data in sorted(files.items()):
        storage.write(storage.join(directory, name), data)
    load_saved_model(directory)
    return Exported(source, step, {name: sha256_hex(data) for name, data in files.items()})


def _of_model(url: str, manifest: Manifest) -> dict[str, bytes]:
    wanted = (WEIGHTS_NAME, DESCRIPTION_NAME, TOKENIZER_NAME, LABELS_NAME)
    files = {}
    for record in manifest.files:
        if record.path in wanted:
            data = storage.read(storage.join(url, record.path))
            if sha256_hex(data) != record.sha256:
                raise IntegrityError(
                    f"{storage.join(url, record.path)} holds other bytes than its manifest says. "
                    "Delete the directory and train again, or export a checkpoint."
                )
            files[record.path] = data
    return files


def _checkpoint_at(url: str) -> Checkpoint:
    """Return the checkpoint that a URL names, or the newest sound one of the training there."""
    url = url.rstrip("/")
    of_training, _, name = url.rpartition(f"/{DIRECTORY}/")
    wanted = CheckpointId.from_name(name) if of_training else None
    store = CheckpointStore(of_training if wanted is not None else url)
    problems = []
    for found in _candidates(store, wanted):
        checkpoint = Checkpoint(found)
        damaged = checkpoint.problems()
        if not damaged:
            return checkpoint
        problems += damaged
    why = "; ".join(problems) if problems else "there is none"
    raise ConfigError(
        f"{url} is no model, no training and no checkpoint that could be exported ({why}). "
        "Name a version as `mm models` lists it, or the directory of a training."
    )


def _candidates(store: CheckpointStore, wanted: CheckpointId | None) -> list[Found]:
    if wanted is None:
        return store.committed()[0]
    found = store.load(wanted)
    return [found] if found is not None else []


def _of_checkpoint(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Put the model of a checkpoint together."""
    about = checkpoint.file(DESCRIPTION_NAME)
    where = storage.join(checkpoint.found.url, DESCRIPTION_NAME)
    model, _ = empty_model(about, where=where)
    engine = build_engine(model, _config_of(checkpoint), _ALONE)
    _load_frozen(model, checkpoint)
    scalars: Any = checkpoint.rank_facts(0)["scalars"]
    engine.load_full_state(checkpoint.read_slice, checkpoint.kinds(), scalars)
    weights = engine.weights()
    preprocessing = json.loads(about)["preprocessing"]
    files = model_files(model, preprocessing=preprocessing, weights=weights)
    return files | {name: checkpoint.file(name) for name in (TOKENIZER_NAME, LABELS_NAME)}


def _config_of(checkpoint: Checkpoint) -> TrainConfig:
    where = storage.join(checkpoint.found.url, CONFIG_NAME)
    try:
        value = json.loads(checkpoint.file(CONFIG_NAME)) | _OF_ONE_PROCESS
        return TypeAdapter(TrainConfig).validate_python(value)
    except (ValueError, TypeError, ValidationError) as error:
        raise IntegrityError(
            f"{where} is of another version of mmcore: {error}. Export with that version."
        ) from error


def _load_frozen(model: MultimodalModel, checkpoint: Checkpoint) -> None:
    names = {record.path for record in checkpoint.found.manifest.files}
    if FROZEN_NAME not in names:
        return
    parameters = dict(model.named_parameters())
    for name, value in tensors_from_bytes(checkpoint.file(FROZEN_NAME)).items():
        parameters[name].data.copy_(value)


def _card(source: str, step: int, files: Mapping[str, bytes]) -> str:
    about = json.loads(files[DESCRIPTION_NAME])
    labels = ", ".join(json.loads(files[LABELS_NAME]))
    encoders = [name for name in ("image", "text", "audio") if about["config"].get(name)]
    # the last parts alone: where a machine keeps its files is nobody's business
    origin = "/".join(source.rstrip("/").split("/")[-2:])
    return (
        "# A model made by mmcore\n\n"
        f"Weights after {step} steps of training, from `{origin}`. It was not evaluated for this "
        "export.\n\n"
        f"- Looks at: {', '.join(encoders)}\n- Classes: {labels}\n"
        f"- `{WEIGHTS_NAME}`: the weights, float32\n"
        f"- `{DESCRIPTION_NAME}`: what the model is, and what was done to its inputs\n"
        f"- `{TOKENIZER_NAME}`, `{LABELS_NAME}`\n\n"
        "Read it with `mmcore.models.saved.load_saved_model`, or the weights with any reader of "
        "safetensors.\n"
    )


def _number(manifest: Manifest, name: str) -> float:
    value = manifest.facts.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0
