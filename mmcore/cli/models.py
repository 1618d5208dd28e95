"""`mm models`: what models there are, and which one is champion."""

from dataclasses import asdict
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.recipe.execute import absolute_root

app = new_app()
_SHOWN_METRICS = ("accuracy", "macro_f1")


@app.command()
def models(
    name: Annotated[str, typer.Argument(help="A model; default: all")] = "",
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """List every model version, the newest first, with its aliases, figures and dataset."""
    from mmcore.register.listing import describe

    versions = describe(absolute_root(root), name)
    if as_json:
        print_json("models", {"models": [asdict(version) for version in versions]})
        return 0
    for version in versions:
        aliases = f"  [{', '.join(version.aliases)}]" if version.aliases else ""
        figures = "  ".join(
            f"{metric} {version.metrics[metric]:.3f}"
            for metric in _SHOWN_METRICS
            if metric in version.metrics
        )
        print(f"{version.name}/{version.version}{aliases}  {figures}  from {version.dataset}")
    if not versions:
        say(f"no model below {root} yet. Make one with: mm run RECIPE")
    return 0
