"""A model's weights counted before there is any: its shapes are made, and no memory for them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from mmcore.errors import ConfigError
from mmcore.models.config import MODALITIES, DataShape, ModelConfig
from mmcore.models.encoders import resolved
from mmcore.models.lora import add_lora, freeze
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.text_encoder import TextEncoder, check_packable
from mmcore.train.config import TrainConfig
from mmcore.train.engines import check_same_path


def count(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the weights of a model, and the memory of this machine's first GPU; ConfigError for
    a model that could not be made or trained.
    """
    train: TrainConfig = config["train"]
    assumed: Mapping[str, int] = config["assumed"]
    shape = DataShape(
        labels=tuple(f"label {number}" for number in range(assumed["num_labels"])),
        vocab_size=assumed["vocab_size"],
        num_mels=assumed["num_mels"],
    )
    model = _without_memory(config["model"], shape)
    freeze(model, train.freeze)
    if train.lora is not None:
        lora = train.lora
        add_lora(model, lora.targets, rank=lora.rank, alpha=lora.alpha, seed=train.seed)
    check_same_path(model, train, config["num_ranks"])
    _check_text(model, assumed["max_tokens"], packs=config["packs"])
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    return {
        "num_trained": counts[True],
        "num_frozen": counts[False],
        "device_bytes": torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0,
    }


def _without_memory(config: ModelConfig, shape: DataShape) -> MultimodalModel:
    given = {name: getattr(config, name) for name in MODALITIES if getattr(config, name)}
    config = replace(config, **{name: resolved(one) for name, one in given.items()})
    try:
        with torch.device("meta"):
            return MultimodalModel(config, shape)
    # what transformers and torch say of options that do not fit each other
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"model: it cannot be made: {str(error).rstrip('.')}. Look at model.<modality>.options."
        ) from error


def _check_text(model: MultimodalModel, max_tokens: int, *, packs: bool) -> None:
    encoder = model.encoders["text"] if "text" in model.modalities else None
    if not isinstance(encoder, TextEncoder):
        return
    if packs:
        check_packable(encoder.backbone.config.model_type)
    if encoder.max_tokens < max_tokens:
        raise ConfigError(
            f"loader.max_tokens={max_tokens} and the text encoder takes {encoder.max_tokens}. "
            "Lower it, or raise model.text.options.max_position_embeddings."
        )
