"""`mm retrain`: retrain on what is new, if the recipe's policy asks for it."""

from typing import Annotated, Any

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
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import absolute_root, run_recipe

app = new_app()
GATE_REFUSED = 3


@app.command()
def retrain(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    executor: Executor = "local",
    workers: Workers = ALL_CORES,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    force: Annotated[bool, typer.Option(help="Whatever the policy says")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would be decided, and no more")] = False,
    as_json: AsJson = False,
) -> int:
    """Retrain on new data, if the recipe's `retrain:` section asks for it.

    Processes the new samples alone, trains from the champion's weights or from scratch, evaluates
    on the same test set, registers; the champion changes only for a better model. Every answer is
    recorded. Exit code 0: a new champion, 3: the champion stays, 4: not worth a training yet.
    """
    from mmcore.recipe.retrain import (
        conclude,
        consider,
        gains_nothing,
        outcome_of,
        record,
        wait_until_quiet,
    )

    root = absolute_root(root)
    loaded = load_recipe(recipe, overrides=overrides)
    name = loaded.recipe.name
    if not dry_run:
        wait_until_quiet(loaded)
    verdict = consider(loaded, root=root, force=force)
    say(f"{'retrain' if verdict.should_run else 'no retraining'}: {verdict.why}")
    if dry_run or not verdict.should_run:
        if not dry_run:
            record(root, name, verdict, trigger="mm retrain")
        _answer(as_json, verdict.should_run, verdict.why, None)
        return 0 if verdict.should_run else NOTHING_TO_DO
    decision_id = record(root, name, verdict, trigger="mm retrain")
    from mmcore.cli.progress import progress_listener
    from mmcore.executors import make_executor

    chosen = load_recipe(recipe, overrides=[*overrides, *verdict.overrides])
    with progress_listener() as listener:
        made = run_recipe(
            chosen,
            root=root,
            executor=make_executor(executor, num_workers=workers),
            listener=listener,
            is_enough=gains_nothing,
        ).artifacts
    outcome = outcome_of(made)
    conclude(root, name, decision_id, outcome)
    _answer(as_json, True, verdict.why, outcome)
    return {"promoted": 0, "done": 0, "kept_champion": GATE_REFUSED}.get(
        outcome["status"], NOTHING_TO_DO
    )


def _answer(as_json: bool, should_run: bool, why: str, outcome: dict[str, Any] | None) -> None:
    if as_json:
        print_json("retrain", {"should_run": should_run, "why": why, "outcome": outcome})
    elif outcome is not None:
        model = f"{outcome['model']}  " if "model" in outcome else ""
        print(f"{model}{outcome['status']}: {outcome.get('why', '')}")
