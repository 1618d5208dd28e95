"""Encoders of Hugging Face `transformers` behind one interface: arrays in, one vector each out."""

import difflib
import json
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mmcore import storage
from mmcore.errors import ConfigError
from mmcore.models.config import (
    AudioEncoderConfig,
    EncoderConfig,
    ImageEncoderConfig,
    TextEncoderConfig,
)

UNKNOWN_ID = 1
"""The id of [UNK] in our tokenizers; see `mmcore.encode.tokenizer`."""
_HASH_FACTOR, _HASH_PRIME = 1_000_003, 2**31 - 1  # products stay below 2**63
_MIN_STD = 1e-3  # of a silent recording

ConfigT = TypeVar("ConfigT", bound=EncoderConfig)


class ImageEncoder(nn.Module):
    """Pictures, uint8 or float in 0..255 [B, H, W, 3], to [B, num_features]."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.backbone = _backbone(config)
        self.num_features = _num_features(self.backbone.config, "hidden_size", "hidden_sizes")
        self.register_buffer("mean", 255 * torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(config.std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        pixels = (image.float() - self.mean) / self.std
        # a permuted [B, H, W, 3] is already what channels_last kernels want
        output = self.backbone(pixels.permute(0, 3, 1, 2).to(_dtype(self.backbone)))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state.mean(dim=1)
        return torch.flatten(pooled, start_dim=1)


class TextEncoder(nn.Module):
    """Token ids int64 [B, L] and their mask bool [B, L] to [B, num_features]."""

    def __init__(self, config: TextEncoderConfig, *, vocab_size: int) -> None:
        super().__init__()
        if not config.path:
            config = replace(config, options={**config.options, "vocab_size": vocab_size})
        self.backbone = _backbone(config)
        if getattr(self.backbone, "pooler", None) is not None:
            # it would look at the first token alone; weights that nothing trains have no use
            self.backbone.pooler = None
        self.token_dropout = config.token_dropout
        known = int(self.backbone.config.vocab_size)
        if known < vocab_size:
            raise ConfigError(
                f"the text encoder {config.path or config.architecture} knows {known} tokens and "
                f"the tokenizer has {vocab_size}. Lower tokenizer.vocab_size to {known} or take "
                "an encoder with a larger vocabulary."
            )
        self.num_features = _num_features(self.backbone.config, "hidden_size")
        self.ngrams = (
            NgramEmbedding(
                config.ngram_sizes, num_buckets=config.num_ngram_buckets, dim=self.num_features
            )
            if config.ngram_sizes
            else None
        )
        self.max_tokens = int(getattr(self.backbone.config, "max_position_embeddings", 2**31))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        if ids.shape[1] > self.max_tokens:
            raise ConfigError(
                f"captions have {ids.shape[1]} tokens and the text encoder takes "
                f"{self.max_tokens}. Lower loader.max_tokens or raise "
                "model.text.options.max_position_embeddings."
            )
        if self.training and self.token_dropout:
            hidden = torch.rand(ids.shape, device=ids.device) < self.token_dropout
            ids = torch.where(hidden & mask, UNKNOWN_ID, ids)
        if self.ngrams is None:
            inputs = {"input_ids": ids}
        else:
            inputs = {"inputs_embeds": self.backbone.get_input_embeddings()(ids) + self.ngrams(ids)}
        states = self.backbone(**inputs, attention_mask=mask.long()).last_hidden_state
        return _masked_mean(states, mask)


class NgramEmbedding(nn.Module):
    """The sum of the embeddings of the runs of tokens that end at each place, [B, L] to [B, L, D].

    Runs are hashed into one table (Pagnoni et al., Byte Latent Transformer, 2024, after fastText,
    Bojanowski et al., TACL 2017).
    """

    def __init__(self, sizes: tuple[int, ...], *, num_buckets: int, dim: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.num_buckets = num_buckets
        self.table = nn.Embedding(num_buckets, dim)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.stack([self.table(self._buckets(ids, size)) for size in self.sizes]).sum(dim=0)

    def _buckets(self, ids: Tensor, size: int) -> Tensor:
        """Return a polynomial rolling hash of the run of `size` tokens that ends at each place."""
        hashed = torch.full_like(ids, size)
        for back in range(size):
            shifted = functional.pad(ids, (back, 0))[:, : ids.shape[1]]
            hashed = (hashed * _HASH_FACTOR + shifted) % _HASH_PRIME
        return hashed % self.num_buckets


class AudioEncoder(nn.Module):
    """Log-mel float32 [B, T, M] and its mask bool [B, T] to [B, num_features]."""

    def __init__(self, config: AudioEncoderConfig, *, num_mels: int) -> None:
        super().__init__()
        kinds: dict[str, type[_AudioBackbone]] = {
            "speech_to_text": _SpeechToText,
            "whisper": _Whisper,
            "resnet": _Spectrogram,
        }
        architecture = _resolved(config).architecture
        if architecture not in kinds:
            raise ConfigError(
                f"model.audio.architecture={architecture!r} is not one of {sorted(kinds)}."
                + _did_you_mean(architecture, kinds)
            )
        kind = kinds[architecture]
        if not config.path:
            config = replace(config, options={**config.options, **kind.input_options(num_mels)})
        self.encoder = kind(_backbone(config))
        for name, wanted in kind.input_options(num_mels).items():
            found = getattr(self.encoder.backbone_config, name)
            if found != wanted:
                raise ConfigError(
                    f"the audio encoder at {config.path} has {name}={found}, and what the loader "
                    f"gives needs {wanted}. Set loader.num_mels to what the encoder was made for."
                )
        self.num_features = self.encoder.num_features

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        pooled: Tensor = self.encoder(_standardised(mel, mask), mask)
        return pooled


class _AudioBackbone(nn.Module):
    """What differs between model types: the layout of the input, and which frames come out."""

    num_features: int

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone_config = backbone.config

    @staticmethod
    def input_options(num_mels: int) -> dict[str, int]:
        """Return the options that say how wide the input is."""
        raise NotImplementedError


class _SpeechToText(_AudioBackbone):
    """The encoder of Speech2Text (Wang et al., AACL 2020): strided convolutions, then layers."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self.backbone = backbone.get_encoder()
        # its table of positions is no weight, and stays float32 where weights do not
        self.backbone.embed_positions.register_forward_hook(
            lambda _, __, positions: positions.to(_dtype(self.backbone))
        )
        self.num_features = int(backbone.config.d_model)
        self.kernel_sizes = list(backbone.config.conv_kernel_sizes)

    @staticmethod
    def input_options(num_mels: int) -> dict[str, int]:
        return {"input_feat_per_channel": num_mels}

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        # zeros for as far as the convolutions see: else the last frames would depend on whether
        # a longer recording is in the batch
        reach = sum(size << layer for layer, size in enumerate(self.kernel_sizes))
        num_frames = mel.shape[1] + reach
        mel, mask = _fitted(mel, num_frames), _fitted(mask, num_frames)
        states = self.backbone(
            mel.to(_dtype(self.backbone)), attention_mask=mask.long()
        ).last_hidden_state
        lengths = mask.sum(dim=1)
        for _ in self.kernel_sizes:
            lengths = torch.div(lengths - 1, 2, rounding_mode="floor") + 1
        frames = torch.arange(states.shape[1], device=mask.device)
        return _masked_mean(states, frames[None, :] < lengths[:, None])


class _Whisper(_AudioBackbone):
    """The encoder of Whisper (Radford et al., 2022), which takes recordings of one fixed length."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self.backbone = backbone.get_encoder()
        self.num_features = int(backbone.config.d_model)

    @staticmethod
    def input_options(num_mels: int) -> dict[str, int]:
        return {"num_mel_bins": num_mels}

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        num_frames = 2 * int(self.backbone_config.max_source_positions)
        mel, mask = _fitted(mel, num_frames), _fitted(mask, num_frames)
        features = mel.transpose(1, 2).to(_dtype(self.backbone))
        states = self.backbone(features).last_hidden_state
        return _masked_mean(states, mask[:, ::2])


class _Spectrogram(_AudioBackbone):
    """A picture encoder over the spectrogram, time along the rows; padding is silence."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self.backbone = backbone
        self.num_features = _num_features(backbone.config, "hidden_size", "hidden_sizes")

    @staticmethod
    def input_options(num_mels: int) -> dict[str, int]:
        return {"num_channels": 1}

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        pixels = mel[:, None].to(_dtype(self.backbone))
        return torch.flatten(self.backbone(pixels).pooler_output, start_dim=1)


def resolved(config: ConfigT) -> ConfigT:
    """Return the configuration with what lies at `path` written out, so that it stands alone."""
    return replace(_resolved(config), path="")


def _resolved(config: ConfigT) -> ConfigT:
    if not config.path:
        return config
    file = storage.join(config.path, "config.json")
    found = json.loads(storage.read(file))
    if "model_type" not in found:
        raise ConfigError(f"{file} names no model_type. Give a directory that transformers wrote.")
    architecture = found.pop("model_type")
    return replace(config, architecture=architecture, options=found)


def _backbone(config: EncoderConfig) -> PreTrainedModel:
    if config.path:
        if not storage.is_local(config.path):
            raise ConfigError(f"encoder path {config.path} is not local. Copy it to a disk first.")
        # safetensors alone: the other format of weights is a pickle, which may run code
        model = AutoModel.from_pretrained(
            config.path, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    else:
        model = AutoModel.from_config(_transformers_config(config))
    if config.is_frozen:
        model.requires_grad_(False)
    backbone: PreTrainedModel = model
    return backbone


def _transformers_config(config: EncoderConfig) -> PretrainedConfig:
    try:
        defaults = AutoConfig.for_model(config.architecture)
    except ValueError as error:
        raise ConfigError(
            f"transformers has no model type {config.architecture!r}. Use a name from its "
            "documentation, for example resnet, bert or speech_to_text."
        ) from error
    known = defaults.to_dict()
    for name in config.options:
        if name not in known:
            raise ConfigError(
                f"{config.architecture} has no option {name!r}.{_did_you_mean(name, known)}"
            )
    made: PretrainedConfig = AutoConfig.for_model(config.architecture, **dict(config.options))
    return made


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _num_features(config: PretrainedConfig, *names: str) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value[-1] if isinstance(value, list | tuple) else value)
    raise ConfigError(
        f"cannot tell how many features a {config.model_type} gives: it has none of {names}. "
        "Take another architecture."
    )


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(states.dtype)[:, :, None]
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def _standardised(mel: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 per band and deviation 1 over all bands, per recording, padding set to 0."""
    weights = mask.to(mel.dtype)[:, :, None]
    num_frames = weights.sum(dim=1, keepdim=True).clamp(min=1)
    centred = (mel - (mel * weights).sum(dim=1, keepdim=True) / num_frames) * weights
    variance = centred.square().sum(dim=(1, 2), keepdim=True) / (num_frames * mel.shape[2])
    return centred / variance.sqrt().clamp(min=_MIN_STD)


def _fitted(frames: Tensor, num_frames: int) -> Tensor:
    """Cut or pad [B, T, ...] with zeros to T = num_frames."""
    frames = frames[:, :num_frames]
    missing = num_frames - frames.shape[1]
    shape = (frames.shape[0], missing, *frames.shape[2:])
    return torch.cat([frames, frames.new_zeros(shape)], dim=1) if missing else frames
