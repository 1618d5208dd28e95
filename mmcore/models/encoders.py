"""Encoders of Hugging Face `transformers` behind one interface: arrays in, one vector each out."""

import difflib
import json
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from mmcore import storage
from mmcore.errors import ConfigError
from mmcore.models.config import (
    AudioEncoderConfig,
    EncoderConfig,
    ImageEncoderConfig,
)

_MIN_STD = 1e-3  # of a silent recording

ConfigT = TypeVar("ConfigT", bound=EncoderConfig)


class ImageEncoder(nn.Module):
    """Pictures, uint8 or float in 0..255 [B, H, W, 3], to [B, num_features]."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config)
        self.num_features = num_features_of(self.backbone.config, "hidden_size", "hidden_sizes")
        self.register_buffer("mean", 255 * torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(config.std), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        pixels = (image.float() - self.mean) / self.std
        # a permuted [B, H, W, 3] is already what channels_last kernels want
        output = self.backbone(pixels.permute(0, 3, 1, 2).to(dtype_of(self.backbone)))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state.mean(dim=1)
        return torch.flatten(pooled, start_dim=1)


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
        self.encoder = kind(build_backbone(config))
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
            lambda _, __, positions: positions.to(dtype_of(self.backbone))
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
            mel.to(dtype_of(self.backbone)), attention_mask=mask.long()
        ).last_hidden_state
        lengths = mask.sum(dim=1)
        for _ in self.kernel_sizes:
            lengths = torch.div(lengths - 1, 2, rounding_mode="floor") + 1
        frames = torch.arange(states.shape[1], device=mask.device)
        return masked_mean(states, frames[None, :] < lengths[:, None])


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
        features = mel.transpose(1, 2).to(dtype_of(self.backbone))
        states = self.backbone(features).last_hidden_state
        return masked_mean(states, mask[:, ::2])


class _Spectrogram(_AudioBackbone):
    """A picture encoder over the spectrogram, time along the rows; padding is silence."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__(backbone)
        self.backbone = backbone
        self.num_features = num_features_of(backbone.config, "hidden_size", "hidden_sizes")

    @staticmethod
    def input_options(num_mels: int) -> dict[str, int]:
        return {"num_channels": 1}

    def forward(self, mel: Tensor, mask: Tensor) -> Tensor:
        pixels = mel[:, None].to(dtype_of(self.backbone))
        return torch.flatten(self.backbone(pixels).pooler_output, start_dim=1)


def resolved(config: ConfigT) -> ConfigT:
    """Return the configuration with what lies at `path` written out, so that it stands alone."""
    return replace(_resolved(config), path="")


def _resolved(config: ConfigT) -> ConfigT:
    if not config.path:
        return config
    file = storage.join(config.path, "config.json")
    data = storage.read_if_exists(file)
    if data is None:
        raise ConfigError(
            f"encoder path {config.path}: there is no config.json. Give a directory that "
            "transformers wrote."
        )
    found = json.loads(data)
    if "model_type" not in found:
        raise ConfigError(f"{file} names no model_type. Give a directory that transformers wrote.")
    architecture = found.pop("model_type")
    return replace(config, architecture=architecture, options=found)


def build_backbone(config: EncoderConfig) -> PreTrainedModel:
    """Return the model of `transformers` that a configuration names."""
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


def num_features_of(config: PretrainedConfig, *names: str) -> int:
    """Return how many features a model gives, by the first of these names that it has."""
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value[-1] if isinstance(value, list | tuple) else value)
    raise ConfigError(
        f"cannot tell how many features a {config.model_type} gives: it has none of {names}. "
        "Take another architecture."
    )


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the type of a module's weights."""
    return next(module.parameters()).dtype


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of [B, L, F] over the places that hold something."""
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
