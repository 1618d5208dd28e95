"""What a person means by a thing to watch: a recipe, a deployment or its file, or a place."""

import os
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mmcore import storage
from mmcore.errors import ConfigError
from mmcore.operate.deployed import find_deployed
from mmcore.operate.deployments import load_deployment
from mmcore.operate.watcher import Watch
from mmcore.recipe.build import load_recipe

_DEFAULT_SETTLE_SECONDS = 2.0


def find_watch(what: str, *, root: str, dataset: str, settle_seconds: float | None) -> Watch:
    """Return what to watch; ConfigError when it cannot be told for which dataset it is."""
    if what.endswith((".yaml", ".yml")):
        watch = _of_file(what)
    elif not storage.is_local(what) or os.path.isdir(what):
        if not dataset:
            raise ConfigError(
                f"{what} may be for any dataset. Say which with --dataset NAME, the name in its "
                "recipe, or watch the recipe itself."
            )
        watch = Watch(
            url=os.path.abspath(what) if storage.is_local(what) else what, dataset=dataset
        )
    else:
        deployed = find_deployed(root, what)
        watch = Watch(
            url=deployed.watched or _source_of(deployed.path),
            dataset=deployed.dataset,
            settle_seconds=deployed.settle_seconds,
        )
    if settle_seconds is None:
        return watch
    return Watch(url=watch.url, dataset=watch.dataset, settle_seconds=settle_seconds)


def _of_file(file: str) -> Watch:
    if _is_deployment(file):
        deployment = load_deployment(file)
        settings = deployment.config.watch
        seconds = settings.settle_seconds if settings is not None else _DEFAULT_SETTLE_SECONDS
        place = deployment.watched or deployment.source
        return Watch(url=_absolute(place), dataset=deployment.dataset, settle_seconds=seconds)
    recipe = load_recipe(file).recipe
    return Watch(url=_absolute(recipe.source.path), dataset=recipe.name)


def _is_deployment(file: str) -> bool:
    """Return whether a file has a `recipe:`, which no recipe has; loading it says what is wrong."""
    try:
        value = YAML(typ="safe", pure=True).load(Path(file))
    except (OSError, YAMLError, UnicodeDecodeError):
        return False
    return isinstance(value, dict) and "recipe" in value


def _source_of(file: str) -> str:
    return _absolute(load_deployment(file).source)


def _absolute(place: str) -> str:
    return os.path.abspath(place) if storage.is_local(place) else place
