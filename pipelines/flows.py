"""The four flows. Each runs a recipe up to a step and does nothing that is done already."""

import os
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import absolute_root
from pipelines.steps import run_steps


def _run_name() -> str:
    """Name a run by what it does and to which recipe."""
    recipe = Path(str(flow_run.parameters.get("recipe"))).stem
    return f"{flow_run.flow_name} {recipe}"


async def _run(
    recipe: str,
    root: str | None,
    overrides: list[str] | None,
    executor: str,
    workers: int,
    until: list[str],
) -> dict[str, Any]:
    loaded = load_recipe(recipe, overrides=overrides or [])
    where = absolute_root(root or os.environ.get("MM_ROOT", ".mm"))
    there = [step.name for step in loaded.graph.steps if step.name in until]
    return await run_steps(loaded, root=where, executor=executor, workers=workers, until=there)


@flow(name="prepare-data", flow_run_name=_run_name)
async def prepare_data(
    recipe: str,
    root: str | None = None,
    overrides: list[str] | None = None,
    executor: str = "ray",
    workers: int = 2,
) -> dict[str, Any]:
    """Take a raw corpus to a published dataset version."""
    return await _run(recipe, root, overrides, executor, workers, ["tokenizer", "shard"])


@flow(name="train-model", flow_run_name=_run_name)
async def train_model(
    recipe: str,
    root: str | None = None,
    overrides: list[str] | None = None,
    executor: str = "ray",
    workers: int = 2,
) -> dict[str, Any]:
    """Train a model on the dataset, which is made first where it is not there."""
    return await _run(recipe, root, overrides, executor, workers, ["train"])


@flow(name="release-model", flow_run_name=_run_name)
async def release_model(
    recipe: str,
    root: str | None = None,
    overrides: list[str] | None = None,
    executor: str = "ray",
    workers: int = 2,
) -> dict[str, Any]:
    """Evaluate the model, register it, and let it ask for the champion's place."""
    return await _run(recipe, root, overrides, executor, workers, ["register"])


@flow(name="end-to-end", flow_run_name=_run_name)
async def end_to_end(
    recipe: str,
    root: str | None = None,
    overrides: list[str] | None = None,
    executor: str = "ray",
    workers: int = 2,
) -> dict[str, Any]:
    """Take a raw corpus to a registered model: every step of the recipe."""
    return await _run(recipe, root, overrides, executor, workers, [])
