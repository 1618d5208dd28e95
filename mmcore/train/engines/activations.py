"""Activations that are computed twice instead of kept (Chen et al., 2016)."""

from torch import nn
from transformers import PreTrainedModel

from mmcore.errors import ConfigError


def recompute_activations(model: nn.Module) -> None:
    """Let every encoder that can do so recompute what its layers gave; ConfigError when none can.

    Encoders with batch statistics cannot: a second pass would move the statistics once more.
    """
    able = [
        one
        for one in model.modules()
        if isinstance(one, PreTrainedModel) and one.supports_gradient_checkpointing
    ]
    if not able:
        raise ConfigError(
            "train.recomputes_activations: no encoder of the model can compute its activations "
            "twice. Set it to false, or take transformers for encoders."
        )
    for one in able:
        # transformers 5 calls by the first name what its version 4 calls by the second
        enable = getattr(one, "activation_checkpointing_enable", one.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
