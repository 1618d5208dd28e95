"""How to train: what decides the weights that come out, and nothing about where it runs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mmcore.errors import ConfigError


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
    learning_rate: float = 2e-3
    """Of AdamW at its highest; see `mmcore.train.schedule`."""
    weight_decay: float = 0.05
    """Of matrices; vectors (biases, norms) have none."""
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_fraction: float = 0.05
    """Of all steps, with a rising learning rate."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to it; 0 leaves them."""
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    """`torch` is the reference for one process: plain AdamW, no ZeRO."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What ranks share out among them: 1 optimizer state, 2 gradients too, 3 weights too."""
    is_offloaded: bool = False
    """Keep optimizer state (and at stage 3 the weights) in the memory of the host, not the GPU."""
    precision: Literal["fp32", "bf16", "bf16_autocast"] = "fp32"
    """`bf16`: weights in bfloat16 with a float32 copy in the optimizer. `bf16_autocast`: float32
    weights, bfloat16 inside matrix products."""
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
        for name in ("weight_decay", "max_grad_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name}={getattr(self, name)}. Use 0 or more.")
        if self.engine == "torch" and self.precision == "bf16":
            raise ConfigError(
                "train.engine=torch keeps no float32 copy of bf16 weights. Use "
                "precision: bf16_autocast, or engine: deepspeed."
            )
        if self.is_offloaded and (self.engine == "torch" or self.zero_stage == 0):
            raise ConfigError(
                "train.is_offloaded needs ZeRO. Use engine: deepspeed with zero_stage 1, 2 or 3."
            )

    def check_ranks(self, num_ranks: int) -> None:
        """Raise ConfigError when this cannot run on a number of ranks."""
        if num_ranks < 1:
            raise ConfigError(f"num_ranks={num_ranks}. Use 1 or more.")
        if self.global_batch_size % num_ranks:
            multiple = num_ranks * -(-self.global_batch_size // num_ranks)
            raise ConfigError(
                f"train.global_batch_size={self.global_batch_size} is not divisible by "
                f"{num_ranks} ranks. Use a multiple, for example {multiple}."
            )
        if self.engine == "torch" and num_ranks > 1:
            raise ConfigError(
                f"train.engine=torch runs in one process and num_ranks={num_ranks}. "
                "Use engine: deepspeed, or num_ranks: 1."
            )
