"""When a training writes a checkpoint, and which ones it keeps."""

from dataclasses import dataclass
from typing import ClassVar

from mmcore.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints of a training; they change nothing of what comes out of it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    every_steps: int = 0
    """Optimizer steps between two checkpoints; 0 leaves it to `every_minutes` and the epochs."""
    every_minutes: float = 10.0
    """By the clock of the first rank; 0 leaves it to `every_steps` and the epochs."""
    at_epoch_end: bool = True
    """Also after each epoch but the last, when the model has just been validated."""
    keep_last: int = 2
    """How many of the newest stay while it trains, so that one may be damaged. All of them go when
    the model is there."""
    keep_best: int = 0
    """How many with the lowest validation loss stay, also when the model is there."""

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.every_minutes < 0:
            name = "every_steps" if self.every_steps < 0 else "every_minutes"
            raise ConfigError(
                f"train.checkpoint.{name}={getattr(self, name)}. Use more than 0, or 0 for none."
            )
        if self.keep_last < 2:
            raise ConfigError(
                f"train.checkpoint.keep_last={self.keep_last}. Use 2 or more: the newest may be "
                "damaged, and training then goes on from the one before."
            )
        if self.keep_best < 0:
            raise ConfigError(f"train.checkpoint.keep_best={self.keep_best}. Use 0 or more.")
