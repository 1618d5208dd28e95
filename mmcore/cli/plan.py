"""`mm plan`: what a run would do."""

from dataclasses import asdict

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    DEFAULT_ROOT,
    AsJson,
    Overrides,
    Recipe,
    Root,
    Until,
    print_json,
    say,
)
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import absolute_root, plan_recipe
from mmcore.recipe.feasible import check_feasible

app = new_app()


@app.command()
def plan(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    until: Until = [],  # noqa: B006
    as_json: AsJson = False,
) -> int:
    """Show which steps would run, why, and how long they took the last time.

    Reads no data. What a training asks for that cannot be had is said here: datasets to mix that
    are not there, weights that are no model, more memory than there is. Exit code 2.
    """
    loaded = load_recipe(recipe, overrides=overrides)
    found = plan_recipe(loaded, root=absolute_root(root), until=until)
    check_feasible(loaded, found, absolute_root(root))
    if as_json:
        steps = [asdict(step) for step in found.steps]
        num_files = len(found.source.files)
        print_json("plan", {"steps": steps, "num_source_files": num_files})
        return 0
    width = max(len(step.name) for step in found.steps)
    for step in found.steps:
        cost = ""
        if step.will_run:
            known = step.estimated_seconds is not None
            cost = (
                f"  ~{step.estimated_seconds:.0f} s" if known else "  cost unknown: never ran here"
            )
        print(f"{'run ' if step.will_run else 'keep'}  {step.name:<{width}}  {step.reason}{cost}")
    if found.to_run:
        say(f"{len(found.to_run)} of {len(found.steps)} steps would run, "
            f"about {found.estimated_seconds:.0f} s by what they took before")  # fmt: skip
    else:
        say("nothing to do")
    return 0
