"""What a recipe asks for that cannot be had, said before anything starts.

What is known depends on how far a run has come: without the dataset these are the other datasets
of its mix, the shapes of the model and the memory; with it, its labels, its scores and its size
too. Nothing is written, and no sample is read.
"""

from collections.abc import Callable
from typing import Any

from mmcore.core.graph import Plan, committed
from mmcore.core.host_memory import available_host_bytes
from mmcore.core.step import Inputs
from mmcore.errors import ConfigError
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import LoadedRecipe

TRAIN_STEP = "train"
_ASSUMED_LABELS = 10


def check_feasible(
    loaded: LoadedRecipe, plan: Plan, root: str, memory: Callable[[], int] = available_host_bytes
) -> None:
    """Raise the first reason why the training of a plan could not be done, if it is to be done.

    `memory` says how much the hosts have that ranks are placed on; by default what this one can
    give.
    """
    if all(step.name != TRAIN_STEP for step in plan.to_run):
        return
    # what needs torch or a dataset's table is loaded for nobody else
    from mmcore.load.batches import MultimodalLoader
    from mmcore.train.memory import check_memory
    from mmcore.train.readiness import check_data

    work: Any = loaded.graph.step(TRAIN_STEP).work
    if isinstance(work.loader, MultimodalLoader):
        work.loader.check_mix_is_there()
    work.start_url(loaded.graph.directory(root, TRAIN_STEP))
    inputs = committed_inputs(loaded, plan)
    if inputs is not None:
        check_data(work.loader, inputs, work.train)
    counted = _count(loaded, work)
    check_memory(
        work.train,
        num_trained=counted["num_trained"],
        num_frozen=counted["num_frozen"],
        num_ranks=work.num_ranks,
        num_local_ranks=work.num_ranks,
        available_bytes=memory(),
        device_bytes=counted["device_bytes"],
    )


def committed_inputs(loaded: LoadedRecipe, plan: Plan) -> Inputs | None:
    """Return the dataset and the tokenizer that a training would read, if both are there."""
    made = committed(plan)
    if plan.ground is None or any(name not in made for name in loaded.graph.upstream(TRAIN_STEP)):
        return None
    return loaded.graph.inputs(loaded.graph.step(TRAIN_STEP), made, plan.ground)


def assumed_shapes(loaded: LoadedRecipe) -> dict[str, int]:
    """Return the shapes of a recipe's batches, for where no batch is there yet."""
    work: Any = loaded.graph.step(TRAIN_STEP).work
    loader = work.loader
    tokenizer: Any = loaded.graph.step("tokenizer").work
    try:
        return {
            "num_labels": _ASSUMED_LABELS,
            "vocab_size": tokenizer.vocab_size,
            "num_mels": loader.num_mels,
            "image_side": loader.image_side,
            "max_tokens": loader.max_tokens,
            "num_frames": round(loader.max_seconds / loader.hop_seconds),
        }
    except AttributeError as error:
        raise ConfigError(
            f"the loader {type(loader).__name__} does not say how large its batches are ({error}). "
            "Make the dataset first: mm run RECIPE --until shard --until tokenizer."
        ) from error


def _count(loaded: LoadedRecipe, work: Any) -> dict[str, Any]:
    """Return how many weights there are, counted in a process of its own: torch stays there."""
    from mmcore.train.work import count_rank

    told: dict[str, Any] = {}
    executor = LocalExecutor()
    config = {
        "model": work.model,
        "train": work.train,
        "assumed": assumed_shapes(loaded),
        "num_ranks": work.num_ranks,
        "packs": bool(getattr(work.loader, "pack_tokens", 0)),
    }
    try:
        executor.gang(count_rank, config, num_ranks=1, on_report=told.update)
    finally:
        executor.close()
    if "why" in told:
        raise ConfigError(told["why"])
    return told
