"""`mm promote`: make a model version the champion."""

import getpass
import socket
from dataclasses import asdict
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.errors import ConfigError
from mmcore.recipe.execute import absolute_root
from mmcore.register.ledger import PROMOTED, Entry, crown, history, reconcile

app = new_app()

Why = Annotated[str, typer.Option(metavar="REASON", help="Why; it stays in the ledger")]


@app.command()
def promote(
    version: Annotated[
        str, typer.Argument(metavar="MODEL/VERSION", help="As `mm models` lists it: stamps/3")
    ],
    why: Why,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Make a model version the champion, with a reason.

    Whoever loads MODEL@champion gets it from then on. `mm rollback` undoes it.
    """
    name, _, number = version.rpartition("/")
    if not name or not number.isdecimal():
        raise ConfigError(
            f"{version!r} is no version of a model. Write it as in: mm promote stamps/3"
        )
    # MLflow takes a second to load
    from mmcore.telemetry.model_registry import ModelRegistry

    root = absolute_root(root)
    registry = ModelRegistry(root)
    if reconcile(registry, root, name) == int(number):
        say(f"nothing to do: {version} is the champion already")
        if as_json:
            print_entry(history(root, name)[-1], as_json=True)
        return NOTHING_TO_DO
    entry = crown(registry, root, name, int(number), kind=PROMOTED, why=why, by=person())
    print_entry(entry, as_json=as_json)
    return 0


def person() -> str:
    """Return who works here, for the ledger."""
    try:
        return f"{getpass.getuser()} at {socket.gethostname()}"
    except (OSError, KeyError):
        return f"somebody at {socket.gethostname()}"  # a container whose user has no name


def print_entry(entry: Entry, *, as_json: bool) -> None:
    """Print who is champion now, and since when."""
    if as_json:
        print_json("champion", asdict(entry))
        return
    before = f" instead of version {entry.before}" if entry.before is not None else ""
    print(f"{entry.model}/{entry.version} is champion{before}: {entry.why}")
