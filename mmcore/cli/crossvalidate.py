"""`mm crossvalidate`: how much of a model's figures is luck."""

from collections.abc import Iterator
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    NOTHING_TO_DO,
    AsJson,
    Executor,
    Overrides,
    Recipe,
    Root,
    Workers,
    print_json,
    say,
)
from mmcore.recipe.crossvalidate import CrossValidation
from mmcore.recipe.crossvalidate import crossvalidate as run_folds
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def crossvalidate(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    folds: Annotated[int, typer.Option(min=2, help="Trainings, each with a part held out")] = 5,
    executor: Executor = "local",
    workers: Workers = ALL_CORES,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    as_json: AsJson = False,
) -> int:
    """Train once per fold and show the mean and the spread of every score.

    What the split keeps on one side is in one fold, classes are spread as in the split, and the
    test split is in none. Folds that are done are kept: killed anywhere, the same command goes on.
    Nothing is registered. Exit code 4: all folds were there already.
    """
    from mmcore.cli.progress import progress_listener
    from mmcore.executors import make_executor

    with progress_listener() as listener:
        found = run_folds(
            recipe,
            num_folds=folds,
            root=absolute_root(root),
            make_executor=lambda: make_executor(executor, num_workers=workers),
            listener=listener,
            overrides=overrides,
        )
    if as_json:
        print_json("crossvalidate", found.to_json())
    else:
        print("\n".join(_table(found)))
        say(f"{found.num_trained} of {folds} folds were trained now; in MLflow they are one study")
    return 0 if found.num_trained else NOTHING_TO_DO


def _table(found: CrossValidation) -> Iterator[str]:
    """Yield a line for each score: its mean, its deviation and the folds one by one."""
    width = max(map(len, found.spreads))
    yield f"{len(found.folds)} folds of {found.dataset}\n"
    numbers = "  ".join(f"fold {one.number + 1:<2}" for one in found.folds)
    yield f"{'':<{width}}  {'mean':>7}  {'+-':>6}  {numbers}"
    for name, spread in found.spreads.items():
        values = "  ".join(f"{one.scores[name]:>7.3f}" for one in found.folds)
        yield f"{name:<{width}}  {spread.mean:>7.3f}  {spread.deviation:>6.3f}  {values}"
