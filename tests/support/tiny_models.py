"""Models of a few thousand weights, and batches for them."""

import numpy as np
import torch

from mmcore.models.config import (
    AudioEncoderConfig,
    DataShape,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
)
from mmcore.models.multimodal import MultimodalModel

LABELS = ("blue", "green", "red")
NUM_MELS = 8
VOCAB_SIZE = 120

TINY_IMAGE = ImageEncoderConfig(
    options={
        "layer_type": "basic",
        "embedding_size": 4,
        "hidden_sizes": [4, 8],
        "depths": [1, 1],
    }
)
TINY_TEXT = TextEncoderConfig(
    options={
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 16,
    }
)
TINY_AUDIO = AudioEncoderConfig(
    options={
        "d_model": 8,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_layers": 1,
        "vocab_size": 8,
        "conv_channels": 8,
        "conv_kernel_sizes": [3, 3],
        "dropout": 0.0,
    }
)
TINY_MODEL = ModelConfig(image=TINY_IMAGE, text=TINY_TEXT, audio=TINY_AUDIO, embedding_dim=8)
SHAPE = DataShape(labels=LABELS, vocab_size=VOCAB_SIZE, num_mels=NUM_MELS)


def tiny_model(config: ModelConfig = TINY_MODEL, *, seed: int = 0) -> MultimodalModel:
    """Return a model with weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return MultimodalModel(config, SHAPE)


def random_batch(size: int = 6, *, seed: int = 0, num_frames: int = 20) -> dict[str, torch.Tensor]:
    """Return a batch in which every sample has every modality."""
    draw = np.random.default_rng(seed)
    arrays = {
        "image": draw.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8),
        "text_ids": draw.integers(1, VOCAB_SIZE, (size, 7)),
        "text_mask": np.ones((size, 7), bool),
        "audio_mel": draw.normal(size=(size, num_frames, NUM_MELS)).astype(np.float32),
        "audio_mask": np.ones((size, num_frames), bool),
        "has_image": np.ones(size, bool),
        "has_text": np.ones(size, bool),
        "has_audio": np.ones(size, bool),
        "label": draw.integers(0, len(LABELS), size),
        "group": np.arange(size),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
