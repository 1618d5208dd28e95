"""`mm rollback`: give the place back to the champion before."""

from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root
from mmcore.cli.promote import Why, person, print_entry
from mmcore.recipe.execute import absolute_root
from mmcore.register.ledger import roll_back

app = new_app()


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model, as `mm models` lists it")],
    why: Why,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Give the place back to the champion before, with a reason.

    Done again, it goes back to the one before that. Nothing is deleted: the ledger keeps it all.
    """
    # MLflow takes a second to load
    from mmcore.telemetry.model_registry import ModelRegistry

    root = absolute_root(root)
    entry = roll_back(ModelRegistry(root), root, model, why=why, by=person())
    print_entry(entry, as_json=as_json)
    return 0
