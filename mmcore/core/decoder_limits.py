"""What one sample may cost, in a process of its own."""

from dataclasses import dataclass
from typing import ClassVar

from mmcore.errors import ConfigError
from mmcore.sample import Sample

DIED, OUT_OF_MEMORY, TIMEOUT = "decoder_died", "decoder_memory", "decoder_timeout"
DEATHS = frozenset({DIED, OUT_OF_MEMORY, TIMEOUT})
"""Reasons that no stage gives: a sample that ended its process, which had measured who knows what
of it, is quarantined as it came in."""


@dataclass(frozen=True, kw_only=True)
class DecoderLimits:
    """What one sample may cost before it is quarantined."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    seconds: float = 20.0
    """Of the processor's time, not of the clock: a busy machine refuses nothing."""
    seconds_per_mb: float = 4.0
    """On top, for each megabyte of its parts: a long video takes long."""
    memory_mb: int = 896
    """Beyond what the process had before."""

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_mb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"limits.{name}={getattr(self, name)}. Use more than 0.")
        if self.seconds_per_mb < 0:
            raise ConfigError(f"limits.seconds_per_mb={self.seconds_per_mb}. Use 0 or more.")

    def seconds_for(self, sample: Sample) -> float:
        """Return what a sample may take."""
        sizes = (part.ref.num_bytes for part in sample.parts.values() if part.ref is not None)
        made = (len(part.data) for part in sample.parts.values() if part.ref is None and part.data)
        return self.seconds + self.seconds_per_mb * (sum(sizes) + sum(made)) / 1e6
