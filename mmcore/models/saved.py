"""A model as files: weights as safetensors, and `model.json` with all that is needed to run it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from mmcore import storage
from mmcore.errors import IntegrityError
from mmcore.models.config import MODALITIES, DataShape, ModelConfig
from mmcore.models.encoders import resolved
from mmcore.models.multimodal import MultimodalModel
from mmcore.sample import Json

WEIGHTS_NAME = "model.safetensors"
DESCRIPTION_NAME = "model.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SavedModel:
    """A model that was read back, ready to be asked."""

    model: MultimodalModel
    """In evaluation mode, float32, on the CPU."""
    config: ModelConfig
    labels: tuple[str, ...]
    preprocessing: Mapping[str, Json]
    """What the loader did to pictures, texts and sounds; whoever asks the model does the same."""


def model_files(
    model: MultimodalModel,
    *,
    preprocessing: Mapping[str, Json],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, bytes]:
    """Return the files of a model by name; equal models give equal bytes.

    `weights` take the place of the model's own, for a model whose weights lie on several ranks.
    """
    state = model.state_dict() if weights is None else weights
    tensors = {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else None)
        for name, tensor in sorted(state.items())
    }
    weight_bytes = tensors_to_bytes({name: t.contiguous() for name, t in tensors.items()})
    about = description(model, preprocessing=preprocessing)
    return {WEIGHTS_NAME: weight_bytes, DESCRIPTION_NAME: about}


def description(model: MultimodalModel, *, preprocessing: Mapping[str, Json]) -> bytes:
    """Return `model.json`: what a model is, but for its weights."""
    value = {
        "format": "mm.model",
        "format_version": FORMAT_VERSION,
        "config": asdict(replace(model.config, **_standing_alone(model.config))),
        "data": asdict(model.shape),
        "preprocessing": dict(preprocessing),
    }
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def save_model(
    directory: str, model: MultimodalModel, *, preprocessing: Mapping[str, Json]
) -> None:
    """Write a model to a directory or a bucket prefix."""
    for name, data in model_files(model, preprocessing=preprocessing).items():
        storage.write(storage.join(directory, name), data)


def empty_model(about: bytes, *, where: str) -> tuple[MultimodalModel, Mapping[str, Json]]:
    """Return a model with weights that mean nothing yet, and its preprocessing.

    `about` is a `model.json`; IntegrityError when it is of another kind.
    """
    try:
        value = json.loads(about)
        if value["format"] != "mm.model" or value["format_version"] != FORMAT_VERSION:
            raise ValueError("another format or version")
        config = TypeAdapter(ModelConfig).validate_python(value["config"])
        shape = TypeAdapter(DataShape).validate_python(value["data"])
        preprocessing: dict[str, Any] = dict(value["preprocessing"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise IntegrityError(
            f"{where} does not describe a model of this version of mmcore: {error}. "
            "Train the model again, or read it with the version that wrote it."
        ) from error
    return MultimodalModel(config, shape), preprocessing


def load_saved_model(url: str) -> SavedModel:
    """Read a model back; IntegrityError when the files are not those of a model."""
    where = storage.join(url, DESCRIPTION_NAME)
    model, preprocessing = empty_model(storage.read(where), where=where)
    weights_url = storage.join(url, WEIGHTS_NAME)
    try:
        model.load_state_dict(tensors_from_bytes(storage.read(weights_url)))
    except (SafetensorError, RuntimeError) as error:
        raise IntegrityError(
            f"{weights_url} does not hold the weights of the model that {where} describes: "
            f"{error}. Delete the directory and train again."
        ) from error
    return SavedModel(model.eval(), model.config, model.shape.labels, preprocessing)


def _standing_alone(config: ModelConfig) -> dict[str, Any]:
    encoders = {name: getattr(config, name) for name in MODALITIES}
    return {name: resolved(found) for name, found in encoders.items() if found is not None}
