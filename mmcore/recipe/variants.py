"""A recipe with other settings, trained beside it: what searches and folds have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mmcore.core.executor import Executor
from mmcore.core.graph import PlannedStep
from mmcore.core.lineage import SHARD_STEP
from mmcore.core.runner import Listener, Run
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError
from mmcore.recipe.build import LoadedRecipe, load_recipe
from mmcore.recipe.execute import describe_plan, open_run, plan_recipe, run_recipe
from mmcore.recipe.feasible import check_feasible

TRAIN_STEP = "train"
EVALUATE_STEP = "evaluate"
_DATA_STEPS = (SHARD_STEP, "tokenizer")
MakeExecutor = Callable[[], Executor]


def load_trainable(file: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe; ConfigError when it trains no model."""
    loaded = load_recipe(file, overrides=overrides)
    if loaded.recipe.model is None:
        raise ConfigError(f"{file} ends with the dataset: add `model:` and `train:` sections.")
    return loaded


def varied(loaded: LoadedRecipe, overrides: Sequence[str]) -> LoadedRecipe:
    """Return the recipe with more overrides than it was read with."""
    return load_recipe(loaded.loaded.file, overrides=(*loaded.overrides, *overrides))


@contextmanager
def open_with_data(
    loaded: LoadedRecipe, *, root: str, make_executor: MakeExecutor, listener: Listener
) -> Iterator[Run]:
    """Yield a run that has its dataset to itself, once the dataset and the tokenizer are there."""
    if plan_recipe(loaded, root=root, until=_DATA_STEPS).to_run:
        data_executor = make_executor()
        run_recipe(loaded, root=root, executor=data_executor, listener=listener, until=_DATA_STEPS)
    until = (TRAIN_STEP,)
    with (
        open_run(loaded, root=root, executor=make_executor(), listener=listener, until=until) as (
            run,
            log,
        ),
        run.executor.stop.working(),
    ):
        plan = run.plan(until)
        log.planned(describe_plan(loaded, plan))
        check_feasible(loaded, plan, root, run.executor.memory_bytes)
        run.run(_DATA_STEPS)
        yield run


def planned(loaded: LoadedRecipe, *, root: str, step: str) -> PlannedStep:
    """Return what a run would do about one step; list the source, read no data."""
    plan = plan_recipe(loaded, root=root, until=(step,))
    return next(one for one in plan.steps if one.name == step)


def dataset_of(loaded: LoadedRecipe, *, root: str) -> tuple[str, str]:
    """Return `name/version` and the fingerprint of the dataset, which is there."""
    fingerprint = planned(loaded, root=root, step=SHARD_STEP).fingerprint
    assert fingerprint is not None, "it was made"
    return f"{loaded.recipe.name}/{fingerprint[:16]}", fingerprint


def run_variant(main: Run, loaded: LoadedRecipe, until: str) -> Mapping[str, Artifact]:
    """Run a variant up to a step, in the place of a run; return what is there then, by step."""
    run = Run(loaded.graph, root=main.root, executor=main.executor, listener=main.listener)
    run.fence = main.fence
    plan = run.plan((until,))
    for step in plan.steps:
        run.run_step(step.name, plan)
    return run.artifacts
