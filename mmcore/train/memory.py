"""How much memory a rank needs, by the theory of ZeRO, before it is asked for.

Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, SC 2020.
Nothing here needs torch, so that a plan can ask.
"""

from dataclasses import dataclass

from mmcore.errors import ConfigError
from mmcore.train.config import TrainConfig

_MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1, "lion": 1}
_MAX_BUCKET_ELEMENTS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class MemoryForecast:
    """The bytes of a rank between two steps, but for activations."""

    weights: int
    gradients: int
    optimizer: int
    """Moments, the float32 copy that they belong to, and the average of the weights."""
    bucket: int
    """What ranks exchange gradients through; see `TrainConfig.gathers_gradients`."""
    offloaded: int
    """How much of that lies with the host, where training is on a GPU."""
    snapshot: int
    """The copy that a checkpoint is written from, with the host: taken once, at the first step."""
    is_bucket_kept: bool = False
    """Whether the bucket is there between the backward pass and the step: at stage 3. At the others
    it is let go of before the last gradients are kept."""

    gradients_let_go: int = 0
    """How much of the gradients other ranks step by: at stage 1 it is there until all have been
    exchanged."""

    @property
    def held(self) -> int:
        """Return what is there once the gradients are, without what comes and goes before."""
        passing = self.bucket * (not self.is_bucket_kept) + self.gradients_let_go
        return self.total - passing

    @property
    def total(self) -> int:
        """Return the sum, host and GPU together, without the snapshot."""
        return self.weights + self.gradients + self.optimizer + self.bucket

    @property
    def on_device(self) -> int:
        """Return what a GPU has to hold."""
        return self.total - self.offloaded

    @property
    def on_host(self) -> int:
        """Return what the host has to hold beside a GPU."""
        return self.offloaded + self.snapshot


def forecast_memory(
    config: TrainConfig, *, num_trained: int, num_frozen: int = 0, num_ranks: int = 1
) -> MemoryForecast:
    """Return what a rank holds of a model with so many weights."""
    stage = config.zero_stage if config.engine == "deepspeed" else 0
    is_half = config.precision in ("bf16", "fp16")
    size = 2 if is_half else 4

    def part(num_elements: int, from_stage: int) -> int:
        return -(-num_elements // num_ranks) if stage >= from_stage else num_elements

    # ZeRO copies the weights for the optimizer even when they are float32
    has_copy = is_half or stage > 0
    per_weight = 4 * (_MOMENTS[config.optimizer] + has_copy + bool(config.ema_decay))
    weights = size * (part(num_trained, 3) + part(num_frozen, 3))
    optimizer = per_weight * part(num_trained, 1)
    has_bucket = stage > 0 and config.gathers_gradients(num_ranks)
    bucket = config.bucket_elements or min(num_trained, _MAX_BUCKET_ELEMENTS)
    # a checkpoint has float32 weights, moments and the average, whatever the precision is
    per_kept = 4 * (_MOMENTS[config.optimizer] + 1 + bool(config.ema_decay))
    offloaded = optimizer * config.offload_optimizer + weights * config.offload_param
    return MemoryForecast(
        weights=weights,
        gradients=size * part(num_trained, 2),
        optimizer=optimizer,
        bucket=size * bucket * has_bucket,
        offloaded=offloaded,
        snapshot=per_kept * part(num_trained, 1),
        is_bucket_kept=stage == 3,
        gradients_let_go=size * (num_trained - part(num_trained, 1)) * (stage == 1),
    )


def check_memory(
    config: TrainConfig,
    *,
    num_trained: int,
    num_frozen: int,
    num_ranks: int,
    num_local_ranks: int,
    available_bytes: int,
    device_bytes: int = 0,
) -> None:
    """Raise ConfigError when a host or a GPU has less memory than its ranks need.

    `available_bytes` is what `num_local_ranks` ranks share of a host's memory, `device_bytes` what
    each has of its own GPU; 0 where they train on the CPU.
    """
    found = forecast_memory(
        config, num_trained=num_trained, num_frozen=num_frozen, num_ranks=num_ranks
    )
    model = (
        f"a model of {num_trained + num_frozen:,} weights with train.zero_stage="
        f"{config.zero_stage}, precision={config.precision} and {config.optimizer}"
    )
    together = f" for each of {num_local_ranks} ranks" if num_local_ranks > 1 else ""
    if device_bytes and found.on_device > device_bytes:
        raise ConfigError(
            f"{model} needs {_gigabytes(found.on_device)} of GPU memory for each rank before any "
            f"activation, and {_gigabytes(device_bytes)} are free. Use a higher zero_stage with "
            "more ranks, offload_optimizer, precision: bf16, or a smaller model."
        )
    needed = found.on_host if device_bytes else found.total + found.snapshot
    if num_local_ranks * needed > available_bytes:
        raise ConfigError(
            f"{model} needs {_gigabytes(needed)}{together} before any activation "
            f"({_gigabytes(found.snapshot)} of it to write checkpoints from), and "
            f"{_gigabytes(available_bytes)} are free. Use a higher zero_stage with more ranks on "
            "more hosts, precision: bf16, or a smaller model; mm forecast RECIPE shows every way."
        )


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
