"""Compaction: a dataset version without tombstones, its shards cut anew, on top of nothing."""

import os
from collections.abc import Sequence
from typing import Any

from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import SHARD_STEP, DatasetVersion, find_dataset, held
from mmcore.core.runs import list_runs
from mmcore.errors import ConfigError
from mmcore.recipe.build import LoadedRecipe, load_recipe

UNTIL = (SHARD_STEP,)


def is_compact(root: str, version: DatasetVersion) -> bool:
    """Return whether a version builds on nothing, and holds nothing that does not count."""
    facts: Any = version.artifact.manifest.facts
    forgotten = load_forgotten(root, version.name)
    return (
        len(facts["increments"]) == 1
        and not facts.get("tombstones")
        and not held(version.artifact, forgotten.keys)
    )


def recipe_of(root: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the recipe that a dataset was last run with, and what was set besides.

    ConfigError when no run of it is on record or the file is gone.
    """
    for run in list_runs(root):
        if run.get("name") == name and run.get("recipe"):
            file = str(run["recipe"])
            if not os.path.exists(file):
                raise ConfigError(
                    f"the recipe of {name} was {file} and is not there. Name it: "
                    f"mm compact {name} --recipe FILE"
                )
            return file, tuple(run.get("overrides") or ())
    raise ConfigError(
        f"no run of {name} is on record below {root}, so its recipe is not known. Name it: "
        f"mm compact {name} --recipe FILE"
    )


def load_compaction(
    root: str,
    name: str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    keep_splits: bool = False,
) -> tuple[DatasetVersion, LoadedRecipe]:
    """Return the version to be compacted, and what makes a version of the source as it now is.

    That is byte for byte the dataset that a first run makes of a source without what is to be
    forgotten. `keep_splits` leaves every sample in the split that it has.
    """
    newest = find_dataset(root, name)
    file, known = (recipe, ()) if recipe else recipe_of(root, name)
    loaded = load_recipe(
        file,
        overrides=[*known, *overrides],
        rebuild=True,
        settled=newest.artifact.manifest.fingerprint if keep_splits else None,
    )
    if loaded.recipe.name != name:
        raise ConfigError(f"{file} makes the dataset {loaded.recipe.name!r}, not {name!r}.")
    return newest, loaded
