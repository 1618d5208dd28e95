"""What lies beside weights so that they are a model, and beside a checkpoint's tensors as well."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from mmcore import storage
from mmcore.core.loader import Loader, OpenLoader
from mmcore.core.step import Inputs
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import DESCRIPTION_NAME, description
from mmcore.train.config import TrainConfig

TOKENIZER_STEP = "tokenizer"
TOKENIZER_NAME = "tokenizer.json"
LABELS_NAME = "labels.json"
CONFIG_NAME = "train.json"
FROZEN_NAME = "frozen.safetensors"


def standing_beside(
    model: MultimodalModel, loader: Loader, inputs: Inputs, dataset: OpenLoader
) -> dict[str, bytes]:
    """Return the files that make a directory with weights a model that stands alone."""
    tokenizer = storage.join(inputs[TOKENIZER_STEP].url, TOKENIZER_NAME)
    return {
        DESCRIPTION_NAME: description(model, preprocessing=dict(loader.identity())),
        TOKENIZER_NAME: storage.read(tokenizer),
        LABELS_NAME: (json.dumps(list(dataset.labels), ensure_ascii=False) + "\n").encode(),
    }


def may_freeze(config: TrainConfig) -> bool:
    """Return whether some weights are not trained."""
    return bool(config.freeze) or config.lora is not None


def weights_by_id(model: MultimodalModel) -> dict[int, Tensor]:
    """Return copies; the engine may cut weights into slices, also those that are not trained."""
    return {id(parameter): parameter.detach().clone() for parameter in model.parameters()}


def frozen_file(model: MultimodalModel, before: Mapping[int, Tensor]) -> dict[str, bytes]:
    """Return the weights that are not trained as a file: no checkpoint of an engine has them."""
    frozen = {
        name: before[id(parameter)]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and id(parameter) in before
    }
    return {FROZEN_NAME: tensors_to_bytes(frozen)} if frozen else {}


def config_file(config: TrainConfig) -> dict[str, bytes]:
    """Return how the model is trained, as a file: it says which weights there are."""
    return {CONFIG_NAME: (json.dumps(asdict(config), indent=1, sort_keys=True) + "\n").encode()}
