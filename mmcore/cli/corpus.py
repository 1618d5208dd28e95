"""`mm corpus`: raw data to work with."""

from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import say
from mmcore.errors import ConfigError

app = new_app()

Destination = Annotated[str, typer.Argument(metavar="DEST", help="A folder that is not there yet")]


@app.callback()
def corpus() -> None:
    """Fetch a real corpus, or make one with known answers."""


@app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="stamps: 950 pictures with captions, speech and sounds (GPL-2.0)"
        ),
    ],
    destination: Destination,
) -> int:
    """Fetch a real corpus by its package name; nothing is installed, no root is needed."""
    if name != "stamps":
        raise ConfigError(f"no corpus {name!r} to fetch. There is: stamps.")
    from mmcore.ingest.fetch import fetch_stamps

    report = fetch_stamps(destination)
    say(str(report))
    return 0


@app.command()
def make(
    destination: Destination,
    samples: Annotated[int, typer.Option(min=1, help="How many samples")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes")] = 0,
) -> int:
    """Make a corpus of pictures, captions, sounds and short videos, with planted duplicates,
    faults and known answers.
    """
    from mmcore.ingest.generate import make_corpus

    answers = make_corpus(destination, num_samples=samples, seed=seed)
    say(str(answers))
    return 0
