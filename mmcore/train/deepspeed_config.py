"""DeepSpeed's own configuration, made from ours, so that everything is said once.

A file of DeepSpeed's may say the rest. Where both speak of one thing they have to agree.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmcore import storage
from mmcore.errors import ConfigError
from mmcore.train.config import TrainConfig

_MAX_BUCKET_ELEMENTS = 50_000_000
_AUTO = "auto"
"""What configurations for other trainers say in place of what the trainer knows."""
_SCHEDULES = {
    "constant": {"WarmupLR"},
    "cosine": {"WarmupCosineLR"},
    "one_cycle": {"OneCycle"},
    "step": set[str](),
}
"""DeepSpeed's schedulers that do what ours do; ours sets the rate either way."""
_OPTIMIZER_FIELDS = {"lr": "learning_rate", "betas": "betas", "weight_decay": "weight_decay"}


def deepspeed_config(
    config: TrainConfig, *, num_ranks: int, num_elements: int = 0, device_type: str = "cpu"
) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a training run of a model of so many weights.

    ConfigError, once for all contradictions, when `train.deepspeed_file` says otherwise.
    """
    config.check_ranks(num_ranks)
    ours = _generated(config, num_ranks, num_elements, is_cuda=device_type == "cuda")
    if not config.deepspeed_file:
        return ours
    theirs = read_deepspeed_file(config.deepspeed_file)
    found = [
        *_contradictions(config, ours, theirs),
        *_optimizer_contradictions(config, theirs),
        *_offload_contradictions(config, theirs),
    ]
    if found:
        raise ConfigError(
            f"{config.deepspeed_file} contradicts the recipe: {'; '.join(found)}. Make both say "
            'the same, or leave it out of the file ("auto" there means what the recipe says).'
        )
    rest = {name: theirs[name] for name in theirs if name not in ("optimizer", "scheduler")}
    return _merged(ours, rest)


def read_deepspeed_file(url: str) -> dict[str, Any]:
    """Return what a DeepSpeed file says; ConfigError when it is no JSON object."""
    data = storage.read_if_exists(url)
    if data is None:
        raise ConfigError(
            f"train.deepspeed_file={url}: there is no such file. Put it where every host sees it "
            "under this name."
        )
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"train.deepspeed_file={url} is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"train.deepspeed_file={url} is a {type(value).__name__}. Use an object.")
    return value


def _generated(
    config: TrainConfig, num_ranks: int, num_elements: int, *, is_cuda: bool
) -> dict[str, Any]:
    # the default of 5e8 numbers would reserve gigabytes for a model of a few megabytes; far below
    # the size of the model, exchanges become many
    bucket = config.bucket_elements or min(max(num_elements, 1), _MAX_BUCKET_ELEMENTS)
    bucket += bucket % 2  # DeepSpeed wants it even
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        # gloo has nothing to overlap with, and sums in one order are worth more
        "overlap_comm": is_cuda and num_ranks > 1,
        "contiguous_gradients": config.gathers_gradients(num_ranks),
    }
    if config.zero_stage < 3 and not is_cuda:
        # gloo sums for everybody either way; so it does it in place
        zero["reduce_scatter"] = False
    if config.zero_stage == 3 and num_ranks == 1:
        # the linear layers with which a weight can be let go of between the passes add a bias in
        # a pass of its own; one rank alone lets go of none
        zero["memory_efficient_linear"] = False
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": is_cuda}
    if config.offload_param:
        zero["offload_param"] = {"device": "cpu", "pin_memory": is_cuda}
    made: dict[str, Any] = {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": config.rank_batch_size(num_ranks),
        "gradient_accumulation_steps": config.num_turns(num_ranks),
        "gradient_clipping": config.max_grad_norm,
        "steps_per_print": 2**31,
        "bf16": {"enabled": config.precision == "bf16"},
        "fp16": {"enabled": config.precision == "fp16"},
        "zero_optimization": zero,
        # torch's optimizers: DeepSpeed's own for CPUs are compiled on first use, for a minute
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
    }
    if config.precision == "fp16":
        made["fp16"]["loss_scale"] = 0  # found as training goes
    return made


def _contradictions(
    config: TrainConfig, ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Iterator[str]:
    said = {
        "train_batch_size": "train.global_batch_size",
        "train_micro_batch_size_per_gpu": "train.micro_batch_size",
        "gradient_accumulation_steps": "what is left of train.global_batch_size",
        "gradient_clipping": "train.max_grad_norm",
    }
    for name, source in said.items():
        if name in theirs and theirs[name] not in (_AUTO, ours[name]):
            yield f"{name}={theirs[name]} and {source} makes it {ours[name]}"
    for name in ("bf16", "fp16"):
        enabled = _section(theirs, name).get("enabled", _AUTO)
        if enabled not in (_AUTO, ours[name]["enabled"]):
            yield f"{name}.enabled={enabled} and train.precision={config.precision}"
    stage = _section(theirs, "zero_optimization").get("stage", _AUTO)
    if stage not in (_AUTO, config.zero_stage):
        yield f"zero_optimization.stage={stage} and train.zero_stage={config.zero_stage}"


def _optimizer_contradictions(config: TrainConfig, theirs: Mapping[str, Any]) -> Iterator[str]:
    optimizer = _section(theirs, "optimizer")
    kind = str(optimizer.get("type", _AUTO))
    if kind != _AUTO and kind.lower() != config.optimizer:
        yield f"optimizer.type={kind} and train.optimizer={config.optimizer}"
    values = _section(optimizer, "params")
    for name, field in _OPTIMIZER_FIELDS.items():
        wanted = getattr(config, field)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        if name in values and values[name] not in (_AUTO, wanted):
            yield f"optimizer.params.{name}={values[name]} and train.{field}={wanted}"
    kind = str(_section(theirs, "scheduler").get("type", _AUTO))
    if kind != _AUTO and kind not in _SCHEDULES[config.schedule]:
        yield f"scheduler.type={kind} and train.schedule={config.schedule}"


def _offload_contradictions(config: TrainConfig, theirs: Mapping[str, Any]) -> Iterator[str]:
    for name in ("offload_optimizer", "offload_param"):
        device = _section(_section(theirs, "zero_optimization"), name).get("device", _AUTO)
        wanted = "cpu" if getattr(config, name) else "none"
        if device not in (_AUTO, wanted):
            said = str(getattr(config, name)).lower()
            yield f"zero_optimization.{name}.device={device} and train.{name}={said}"


def _section(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{name} of the DeepSpeed file is {found!r}. Use an object.")
    return found


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(ours)
    for name, value in theirs.items():
        if isinstance(value, Mapping):
            merged[name] = _merged(merged.get(name, {}), value)
        elif value != _AUTO:
            merged[name] = value
    return merged
