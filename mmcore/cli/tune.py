"""`mm tune`: better settings, by trying."""

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    NOTHING_TO_DO,
    AsJson,
    Overrides,
    Recipe,
    Root,
    Workers,
    print_json,
    say,
)
from mmcore.recipe.execute import absolute_root
from mmcore.recipe.tune import Search, TrialResult, search

app = new_app()


@app.command()
def tune(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    trials: Annotated[int, typer.Option(min=1, help="Settings to try")] = 10,
    workers: Workers = ALL_CORES,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    as_json: AsJson = False,
) -> int:
    """Search the ranges that a recipe declares, with Ray Tune; those without promise end early.

    tune: {train.learning_rate: {log_uniform: [1e-4, 1e-2]}, train.weight_decay: {choice: [0, 0.1]},
    metric: val_accuracy, mode: max} in the recipe says what is searched (choice, uniform,
    log_uniform or integer, of settings of train, model and loader) and what is better.
    Each trial is a training with a fingerprint of its own, and its ranks are on one host; more
    trials later begin with those that are done. Killed anywhere, the same command goes on.
    Nothing is registered: mm run with the --set that is printed does that, and trains nothing
    again. Exit code 4: all trials were known already.
    """
    from mmcore.cli.progress import progress_listener
    from mmcore.executors.ray import RayExecutor

    with progress_listener() as listener:
        found = search(
            recipe,
            num_trials=trials,
            root=absolute_root(root),
            make_executor=lambda: RayExecutor(num_workers=workers),
            listener=listener,
            overrides=overrides,
        )
    if as_json:
        print_json("tune", found.to_json())
    else:
        print("\n".join(_table(found)))
        if len(found.trials) < trials:
            say(f"the ranges have only {len(found.trials)} different settings")
        say(f"{found.num_tried} of {len(found.trials)} trials were tried now")
        best = found.best
        if best is not None:
            settings = " ".join(f"--set {one}" for one in best.overrides)
            print(f"\nbest: trial {best.number}\nmm run {recipe} {settings}")
    return 0 if found.num_tried else NOTHING_TO_DO


def _table(found: Search) -> Iterator[str]:
    """Yield a line for each trial, the best first."""
    names = list(found.trials[0].settings)
    widths = [max(len(name), 10) for name in names]
    titles = "  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    yield f"{'trial':>5}  {found.metric:>12}  {'epochs':>6}  {titles}"
    for one in found.ranked:
        value = "-" if one.value is None else f"{one.value:.4f}"
        epochs = int(one.history[-1]["epoch"]) if one.history else 0
        settings = "  ".join(
            f"{json.dumps(one.settings[name]):>{width}}"
            for name, width in zip(names, widths, strict=True)
        )
        yield f"{one.number:>5}  {value:>12}  {epochs:>6}  {settings}{_end(one)}"


def _end(one: TrialResult) -> str:
    if one.status == "done":
        return ""
    said = "stopped early" if one.status == "stopped" else f"failed: {one.error}"
    return f"  {said}"
