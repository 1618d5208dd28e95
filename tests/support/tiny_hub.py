"""Models of `transformers` with a few thousand random weights, saved as users find them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    PreTrainedModel,
    ResNetConfig,
    Wav2Vec2Config,
)

from mmcore.encode.tokenizer import TokenizerWork

CAPTIONS = ["a blue bird", "a red bird", "two green frogs in the rain"]
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def tiny_tokenizer() -> Tokenizer:
    return TokenizerWork(vocab_size=80, min_frequency=1).train(CAPTIONS)


def tiny_clip() -> PreTrainedModel:
    size = tiny_tokenizer().get_vocab_size()
    text = {**_TOWER, "vocab_size": size, "max_position_embeddings": 64, "eos_token_id": 3}
    vision = {**_TOWER, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return _made(config)


def tiny_resnet() -> PreTrainedModel:
    return _made(
        ResNetConfig(layer_type="basic", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])
    )


def tiny_bert() -> PreTrainedModel:
    size = tiny_tokenizer().get_vocab_size()
    return _made(BertConfig(**_TOWER, vocab_size=size, max_position_embeddings=64))


def tiny_wav2vec() -> PreTrainedModel:
    return _made(
        Wav2Vec2Config(
            **_TOWER,
            conv_dim=[8, 8],
            conv_kernel=[10, 8],
            conv_stride=[5, 4],
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        )
    )


def save(model: PreTrainedModel, directory: Path) -> str:
    """Write weights, configuration and a tokenizer, as a directory that users give."""
    model.save_pretrained(directory)
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    return str(directory)


def _made(config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModel.from_config(config)
    return made.eval()
