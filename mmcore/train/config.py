"""How to train: what decides the weights that come out, and nothing about where it runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import ClassVar, Literal

from mmcore.errors import ConfigError
from mmcore.sample import Json
from mmcore.train.checkpoints.config import CheckpointConfig


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Train a product of two thin matrices in place of each chosen one (Hu et al., ICLR 2022)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    targets: tuple[str, ...]
    """Patterns (`*`, `?`) of the names of linear layers, `encoders.text.*.query` for example. They
    are frozen; freeze what else shall stay as it is by `train.freeze`."""
    rank: int = 8
    """Of the products: the width of the thin matrices."""
    alpha: float = 16.0
    """Products are multiplied by alpha / rank."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError(
                "train.lora.targets is empty. Name linear layers, for example "
                "[encoders.text.*.query, encoders.text.*.value]."
            )
        for name in ("rank", "alpha"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"train.lora.{name}={getattr(self, name)}. Use more than 0.")


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """End training when a figure of the validation split no longer gets better."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    metric: str = "val_loss"
    """`val_loss`, `val_accuracy` or `val_accuracy_<modality>`."""
    patience: int = 3
    """Epochs in a row that may bring nothing."""
    min_delta: float = 0.0
    """A change that is smaller is none."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more is better."""

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"train.early_stopping.patience={self.patience}. Use 1 or more.")
        if self.min_delta < 0:
            raise ConfigError(f"train.early_stopping.min_delta={self.min_delta}. Use 0 or more.")
        if (self.metric == "val_loss") != (self.mode == "min"):
            right = "min" if self.metric == "val_loss" else "max"
            raise ConfigError(
                f"train.early_stopping.mode={self.mode} and metric={self.metric}: training would "
                f"stop when it goes well. Use mode: {right}."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Equal values, data and world size give equal weights."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    seed: int = 0
    """Of the first weights, the order of the samples, their augmentation, and dropout."""
    start_from: str = ""
    """The fingerprint of an earlier training of this dataset whose weights to start from; empty
    starts from random ones."""
    epochs: int = 20
    global_batch_size: int = 128
    """Samples per optimizer step over all ranks; the incomplete last batch of an epoch is left
    out."""
    micro_batch_size: int = 0
    """Samples that a rank holds at once: gradients of its share of the batch are added up over as
    many turns as that takes. 0: all of its share in one turn. Contrastive losses compare the
    samples of one turn."""
    optimizer: Literal["adamw", "adam", "sgd", "lion"] = "adamw"
    """`adam` adds the weight decay to the gradient, `adamw` to the weights."""
    learning_rate: float = 2e-3
    """At its highest; see `mmcore.train.schedule`."""
    weight_decay: float = 0.05
    """Of matrices; vectors (biases, norms) have none."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Of AdamW, Adam and Lion; the first is the momentum of SGD."""
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup_fraction: float = 0.05
    """Of all steps, with a rising learning rate."""
    drop_at: tuple[float, ...] = (0.5, 0.75)
    """The fractions of all steps at which the schedule `step` lowers the learning rate."""
    drop_factor: float = 0.1
    """What the schedule `step` multiplies the learning rate by."""
    momentum_low: float = 0.85
    """With the schedule `one_cycle`: what the first of `betas` falls to as the learning rate rises,
    to come back as that falls. Where `betas` is lower already it stays."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to it; 0 leaves them."""
    ema_decay: float = 0.0
    """Of the average of the weights over the steps, which is then validated and kept in place of
    the last weights; 0.999 is usual, 0 keeps the last."""
    early_stopping: EarlyStopping | None = None
    freeze: tuple[str, ...] = ()
    """Patterns (`*`, `?`) of the names of weights that stay as they are: `encoders.text.*`."""
    lora: LoraConfig | None = None
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    """`torch` is the reference for one process: no ZeRO."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What ranks share out among them: 1 optimizer state, 2 gradients too, 3 weights too."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in the memory of the host, not the GPU; with ZeRO 1 to 3."""
    offload_param: bool = False
    """Keep the weights in the memory of the host too; with ZeRO 3."""
    recomputes_activations: bool = False
    """Compute what the layers of the encoders gave once more in the backward pass, and do not keep
    it: less memory, more time."""
    precision: Literal["fp32", "bf16", "bf16_autocast", "fp16"] = "fp32"
    """`bf16`, `fp16`: weights in half precision with a float32 copy in the optimizer; `fp16` scales
    the loss. `bf16_autocast`: float32 weights, bfloat16 inside matrix products."""
    bucket_elements: int = 0
    """Gradients that ranks exchange at once, a buffer of this many numbers; 0: as many as the model
    has weights, 50 million at the most."""
    deepspeed_file: str = ""
    """A configuration of DeepSpeed, in JSON, for what is not said here; what contradicts is
    refused. Every host has to see it under this name."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When it is written down how far training has come; no part of the result."""
    num_threads: int = 1
    """Of each rank, on the CPU. Sums are split by it, so it is part of the result."""

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch_size", "num_threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}={getattr(self, name)}. Use 1 or more.")
        if self.learning_rate <= 0:
            raise ConfigError(f"train.learning_rate={self.learning_rate}. Use more than 0.")
        if not 0 <= self.warmup_fraction < 1:
            raise ConfigError(
                f"train.warmup_fraction={self.warmup_fraction}. Use 0 or more and less than 1."
            )
        for name in ("weight_decay", "max_grad_norm", "micro_batch_size", "bucket_elements"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name}={getattr(self, name)}. Use 0 or more.")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay={self.ema_decay}. Use 0 or more and less than 1.")
        if self.schedule == "one_cycle" and not self.warmup_fraction:
            raise ConfigError(
                "train.schedule=one_cycle rises first, and train.warmup_fraction=0. Use 0.3."
            )
        if not 0 <= self.momentum_low < 1:
            raise ConfigError(
                f"train.momentum_low={self.momentum_low}. Use 0 or more and less than 1."
            )
        if list(self.drop_at) != sorted(set(self.drop_at)) or not all(
            0 < at < 1 for at in self.drop_at
        ):
            raise ConfigError(
                f"train.drop_at={list(self.drop_at)}. Use rising fractions between 0 and 1."
            )
        if not 0 < self.drop_factor < 1:
            raise ConfigError(f"train.drop_factor={self.drop_factor}. Use between 0 and 1.")
        self._check_engine()

    def _check_engine(self) -> None:
        if self.engine == "torch" and self.precision in ("bf16", "fp16"):
            raise ConfigError(
                f"train.engine=torch keeps no float32 copy of {self.precision} weights. Use "
                "precision: bf16_autocast, or engine: deepspeed."
            )
        if self.engine == "torch" and self.deepspeed_file:
            raise ConfigError(
                f"train.deepspeed_file={self.deepspeed_file} and engine=torch, which does not read "
                "it. Use engine: deepspeed."
            )
        if self.offload_optimizer and (self.engine == "torch" or self.zero_stage == 0):
            raise ConfigError(
                "train.offload_optimizer needs ZeRO. Use engine: deepspeed with zero_stage 1, 2 "
                "or 3."
            )
        if self.offload_param and (self.engine == "torch" or self.zero_stage < 3):
            raise ConfigError(
                "train.offload_param needs ZeRO 3. Use engine: deepspeed with zero_stage 3."
            )

    def identity(self) -> Mapping[str, Json]:
        """Return what decides the weights; what came later and is neutral is left out.

        So a model keeps its fingerprint when a new choice appears that it did not make.
        """
        values = asdict(self)
        del values["checkpoint"]
        for one in fields(self):
            if one.name in _LATER and getattr(self, one.name) == one.default:
                del values[one.name]
        if self.schedule != "one_cycle":  # nobody else looks at it
            del values["momentum_low"]
        return values

    def num_turns(self, num_ranks: int) -> int:
        """Return in how many turns a rank goes through its share of a batch."""
        return self.global_batch_size // (num_ranks * self.rank_batch_size(num_ranks))

    def rank_batch_size(self, num_ranks: int) -> int:
        """Return how many samples a rank holds at once."""
        return self.micro_batch_size or self.global_batch_size // num_ranks

    def gathers_gradients(self, num_ranks: int) -> bool:
        """Return whether ZeRO copies gradients together in a bucket, as it has to for other ranks.

        One rank alone leaves those of float32 weights where they are.
        """
        is_half = self.precision in ("bf16", "fp16")
        return num_ranks > 1 or is_half or self.offload_optimizer

    def check_ranks(self, num_ranks: int) -> None:
        """Raise ConfigError when this cannot run on a number of ranks."""
        if num_ranks < 1:
            raise ConfigError(f"num_ranks={num_ranks}. Use 1 or more.")
        together = num_ranks * max(1, self.micro_batch_size)
        if self.global_batch_size % together:
            multiple = together * -(-self.global_batch_size // together)
            at_once = f" times micro_batch_size={self.micro_batch_size}"
            ranks = f"{num_ranks} rank{'s' * (num_ranks > 1)}"
            raise ConfigError(
                f"train.global_batch_size={self.global_batch_size} is not divisible by "
                f"{ranks}{at_once if self.micro_batch_size else ''}. Use a multiple, for "
                f"example {multiple}."
            )
        if self.engine == "torch" and num_ranks > 1:
            raise ConfigError(
                f"train.engine=torch runs in one process and num_ranks={num_ranks}. "
                "Use engine: deepspeed, or num_ranks: 1."
            )


_LATER = frozenset(
    {
        "micro_batch_size", "optimizer", "schedule", "drop_at", "drop_factor", "ema_decay",
        "early_stopping", "freeze", "lora", "offload_optimizer", "offload_param",
        "recomputes_activations", "bucket_elements", "deepspeed_file",
    }
)  # fmt: skip
"""Fields that trainings of the first version did not have."""
