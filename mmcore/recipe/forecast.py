"""What a training will need and how long it will take, before anything long starts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mmcore.core.executor import Executor
from mmcore.core.host_memory import available_host_bytes
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError, MmError
from mmcore.recipe.build import LoadedRecipe
from mmcore.recipe.execute import plan_recipe
from mmcore.recipe.feasible import assumed_shapes, committed_inputs
from mmcore.recipe.variants import TRAIN_STEP, load_trainable

if TYPE_CHECKING:
    from mmcore.train.memory import MemoryForecast

_OFFLOADS = ("none", "optimizer", "optimizer+weights")


@dataclass(frozen=True)
class Case:
    """The bytes of a rank in one way to share a training out."""

    num_ranks: int
    zero_stage: int
    offload: str
    """`none`, `optimizer`, or `optimizer+weights`: what lies with the host instead of the GPU."""
    weights: int
    gradients: int
    optimizer: int
    bucket: int
    snapshot: int
    """Of a checkpoint in the making: with the host, and beside the total."""
    activations: int
    total: int
    on_device: int
    """Of the total, what is not with the host."""
    fits: bool | None
    """On this machine, with all ranks on it; None where the ranks do not divide the batch."""


@dataclass(frozen=True)
class Rehearsed:
    """What a few steps were like, with the recipe's own engine and ranks."""

    num_ranks: int
    step_seconds: float
    wait_seconds: float
    """Of a step, until its batch was there."""
    samples_per_second: float
    tokens_per_second: float
    num_steps: int
    """Of the whole training; 0 where the dataset is not there to count."""
    training_seconds: float
    """Without validation and checkpoints."""
    activation_bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a training will need."""

    num_trained: int
    num_frozen: int
    precision: str
    optimizer: str
    is_real: bool
    """Whether the batches were those of the dataset; else made up, of the largest size."""
    device: str
    available_bytes: int
    """Of the host's memory."""
    device_bytes: int
    """Of each GPU; 0 where training is on the CPU."""
    cases: Sequence[Case]
    rehearsed: Rehearsed | None
    why_not: str = ""
    """Why no step was taken."""
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it with stable keys."""
        return asdict(self)


def forecast(
    file: str,
    *,
    ranks: Sequence[int],
    root: str,
    executor: Executor,
    num_steps: int = 3,
    overrides: Sequence[str] = (),
) -> Forecast:
    """Count the weights, take a few steps, and work out every way to share the training out.

    Nothing is written, and nothing is trained that stays.
    """
    loaded = load_trainable(file, overrides)
    work: Any = loaded.graph.step(TRAIN_STEP).work
    plan = plan_recipe(loaded, root=root, until=(TRAIN_STEP,))
    inputs = committed_inputs(loaded, plan)
    counted, measured, why_not = _rehearse(loaded, work, inputs, executor, num_steps)
    available = available_host_bytes()
    rows_measured = work.train.rank_batch_size(work.num_ranks)
    per_row = measured["activation_bytes"] / rows_measured if measured else 0.0
    cases = list(_cases(work, counted, ranks, per_row, available))
    rehearsed = None
    if measured:
        per_epoch = 0
        if inputs is not None:
            dataset = work.loader.open(inputs)
            per_epoch = dataset.num_steps("train", global_batch_size=work.train.global_batch_size)
        seconds = measured["step_seconds"] + measured["wait_seconds"]
        rehearsed = Rehearsed(
            num_ranks=work.num_ranks,
            step_seconds=measured["step_seconds"],
            wait_seconds=measured["wait_seconds"],
            samples_per_second=work.train.global_batch_size / seconds,
            tokens_per_second=measured["num_tokens"] / seconds,
            num_steps=per_epoch * work.train.epochs,
            training_seconds=per_epoch * work.train.epochs * seconds,
            activation_bytes=measured["activation_bytes"],
        )
    return Forecast(
        num_trained=counted["num_trained"],
        num_frozen=counted["num_frozen"],
        precision=work.train.precision,
        optimizer=work.train.optimizer,
        is_real=counted["is_real"],
        device=counted["device"],
        available_bytes=available,
        device_bytes=counted["device_bytes"],
        cases=cases,
        rehearsed=rehearsed,
        why_not=why_not,
        notes=list(_notes(counted, measured)),
    )


def _notes(counted: Mapping[str, Any], measured: Mapping[str, Any]) -> Iterator[str]:
    if not counted["is_real"]:
        yield (
            f"the dataset is not there: batches were made up, of the largest size, with "
            f"{counted['num_labels']} classes"
        )
    if measured:
        yield "activations: measured in the first step, and taken to grow with the rows of a rank"
    else:
        yield "activations are not in the table: no step was taken"
    if counted["device"] == "cpu":
        yield "no MFU: what a CPU could do at best is not known"


def _rehearse(
    loaded: LoadedRecipe, work: Any, inputs: Inputs | None, executor: Executor, num_steps: int
) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """Return what was counted, what was measured, and why nothing was."""
    from mmcore.train.work import rehearse_rank

    told: dict[str, Mapping[str, Any]] = {}
    config = {
        "model": work.model,
        "train": work.train,
        "loader": work.loader,
        "inputs": inputs,
        "assumed": assumed_shapes(loaded),
        "num_steps": num_steps,
        "counts_tensors": False,
    }
    why_not = ""
    try:
        executor.gang(
            rehearse_rank,
            config,
            num_ranks=work.num_ranks,
            on_report=lambda report: told.update({str(report["kind"]): report}),
        )
    except MmError as error:
        if "counted" not in told:
            raise
        why_not = str(error)
    finally:
        executor.close()
    measured = told.get("rehearsed", {})
    return measured or told["counted"], measured, why_not


def _cases(
    work: Any, counted: Mapping[str, Any], ranks: Sequence[int], per_row: float, available: int
) -> Iterator[Case]:
    """Yield every way to share it out: rank counts, stages, and what may be with the host."""
    from mmcore.train.memory import forecast_memory

    for num_ranks in ranks:
        for stage in (0, 1, 2, 3):
            for offload in _OFFLOADS[: (1, 2, 2, 3)[stage]]:
                config = replace(
                    work.train,
                    engine="deepspeed",
                    zero_stage=stage,
                    offload_optimizer="optimizer" in offload,
                    offload_param="weights" in offload,
                )
                memory = forecast_memory(
                    config,
                    num_trained=counted["num_trained"],
                    num_frozen=counted["num_frozen"],
                    num_ranks=num_ranks,
                )
                try:
                    config.check_ranks(num_ranks)
                except ConfigError:
                    rows, divides = 0, False
                else:
                    rows, divides = config.rank_batch_size(num_ranks), True
                activations = round(per_row * rows)
                total = memory.total + counted["buffer_bytes"] + activations
                yield Case(
                    num_ranks=num_ranks,
                    zero_stage=stage,
                    offload=offload,
                    weights=memory.weights + counted["buffer_bytes"],
                    gradients=memory.gradients,
                    optimizer=memory.optimizer,
                    bucket=memory.bucket,
                    snapshot=memory.snapshot,
                    activations=activations,
                    total=total,
                    on_device=total - memory.offloaded,
                    fits=_fits(num_ranks, total, memory, available, counted["device_bytes"])
                    if divides
                    else None,
                )


def _fits(
    num_ranks: int, total: int, memory: "MemoryForecast", available: int, device_bytes: int
) -> bool:
    if not device_bytes:
        return num_ranks * (total + memory.snapshot) <= available
    return total - memory.offloaded <= device_bytes and num_ranks * memory.on_host <= available
