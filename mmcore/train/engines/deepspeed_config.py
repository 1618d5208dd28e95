"""DeepSpeed's own configuration, made from ours, so that everything is said once."""

from typing import Any

from mmcore.train.config import TrainConfig

# Small: the default of 5e8 elements would reserve gigabytes for a model of a few megabytes.
_BUCKET_ELEMENTS = 5_000_000


def deepspeed_config(config: TrainConfig, *, num_ranks: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration for a training run."""
    config.check_ranks(num_ranks)
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
        "allgather_bucket_size": _BUCKET_ELEMENTS,
        # sums in one order: overlapped reductions may add in another
        "overlap_comm": False,
        "contiguous_gradients": True,
    }
    if config.is_offloaded:
        zero["offload_optimizer"] = {"device": "cpu"}
        if config.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.global_batch_size // num_ranks,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm,
        "steps_per_print": 2**31,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": zero,
        # torch's AdamW: DeepSpeed's own for CPUs is compiled on first use, which takes a minute
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }
