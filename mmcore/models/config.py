"""What a model is, as plain values: a plan, a recipe and a saved model need no torch to know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mmcore.errors import ConfigError

MODALITIES = ("image", "text", "audio")
"""In the order in which they appear everywhere."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder of `transformers`: made from a configuration, or read from a local directory."""

    # pydantic reads this when a recipe is checked: an unknown key is an error, with a suggestion
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    architecture: str
    """A model type of `transformers`, by its name there: `resnet`, `vit`, `bert`, `whisper`."""
    # Any: the recursive type of JSON values is more than pydantic can read
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of that model type's configuration; what is left out has the default there."""
    path: str = ""
    """A local directory with `config.json` and `model.safetensors` to start from. It takes the
    place of `architecture` and `options`."""
    is_frozen: bool = False
    """Leave the encoder as it is and train what stands on it."""


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(EncoderConfig):
    """Pictures [B, H, W, 3] to one vector each. The default is a ResNet for 64 px."""

    architecture: str = "resnet"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {
            "layer_type": "basic",
            "embedding_size": 32,
            "hidden_sizes": [32, 64, 128, 256],
            "depths": [1, 1, 1, 1],
        }
    )
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of RGB in 0..1, subtracted."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Of RGB in 0..1, divided by."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig(EncoderConfig):
    """Token ids [B, L] to one vector each: the mean over tokens. The default is a small BERT."""

    architecture: str = "bert"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 128,
            "attention_probs_dropout_prob": 0.0,
        }
    )
    token_dropout: float = 0.0
    """The share of tokens that are hidden as [UNK] in training; the words of a small corpus are
    otherwise learnt by heart."""
    ngram_sizes: tuple[int, ...] = ()
    """Lengths of the runs of tokens whose embeddings are added to that of their last token, for
    example [2, 3, 4]. With a small vocabulary (tokens near to characters) a word that was never
    seen is then known by its pieces."""
    num_ngram_buckets: int = 20_000
    """Rows of the table that runs of tokens are hashed into."""


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig(EncoderConfig):
    """Log-mel frames [B, T, M] to one vector each: the mean over time.

    Each recording is brought to mean 0 and deviation 1 first, over its own frames. Model types:
    `speech_to_text` (any length), `whisper` (its encoder; fixed length), `resnet` (the
    spectrogram as a picture).
    """

    architecture: str = "speech_to_text"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {
            "d_model": 128,
            "encoder_layers": 2,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "encoder_layerdrop": 0.0,
            "conv_channels": 256,
            "conv_kernel_sizes": [5, 5],
            "dropout": 0.0,
        }
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How the parts of the loss are weighed; see `mmcore.models.losses`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    contrastive_weight: float = 0.5
    temperature: float = 0.1
    """What cosines are divided by. Smaller looks more at the hardest negatives."""
    label_smoothing: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model over the modalities whose encoder is given: one embedding space, and class heads."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    image: ImageEncoderConfig | None = field(default_factory=ImageEncoderConfig)
    """None: the model does not look at pictures. So for the others."""
    text: TextEncoderConfig | None = field(default_factory=TextEncoderConfig)
    audio: AudioEncoderConfig | None = field(default_factory=AudioEncoderConfig)
    embedding_dim: int = 128
    """Of the space in which a picture, its caption and its speech lie close together."""
    dropout: float = 0.2
    """On what the encoders give, before the heads."""
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ConfigError("model has no encoder. Give at least one of image, text and audio.")
        if self.embedding_dim < 1:
            raise ConfigError(f"model.embedding_dim={self.embedding_dim}. Use 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout={self.dropout}. Use 0 or more and less than 1.")
        if self.loss.temperature <= 0:
            raise ConfigError(
                f"model.loss.temperature={self.loss.temperature}. Use more than 0; 0.1 is usual."
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Return the names of the modalities that have an encoder."""
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """What the model has to know of the data, besides its configuration."""

    labels: tuple[str, ...]
    """The names of the classes, in the order of the logits."""
    vocab_size: int
    num_mels: int
