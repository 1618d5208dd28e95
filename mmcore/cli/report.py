"""`mm report`: a dataset version to look at."""

from typing import Annotated, Any

import typer

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.lineage import find_dataset
from mmcore.evaluate.data.work import REPORT_NAME, find_report
from mmcore.recipe.contents import report_on
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def report(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET", help="NAME is its newest version, or NAME/VERSION; default: newest"
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME/VERSION", help="What to compare it with, not the one before"),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Copy the page there, to be sent on")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Print where the data report of a dataset version lies; make it unless it is there.

    One page that needs nothing else: what was kept and left out and why, scores with their limits,
    examples to look at and listen to, duplicates side by side, classes, and drift since the version
    before. The report of a new version is made when a run publishes it.
    """
    root = absolute_root(root)
    version = find_dataset(root, dataset)
    other = None if against is None else find_dataset(root, against)
    is_new = find_report(root, version, against=other) is None
    if is_new:
        say(f"making the report of {version}")
    made = report_on(root, version, against=other)
    place = storage.join(made.url, REPORT_NAME)
    if out is not None:
        storage.write(absolute_root(out), storage.read(place))
        place = out
    if as_json:
        told: dict[str, Any] = {"report": place, "url": made.url, "is_new": is_new}
        print_json("report", {**made.manifest.facts, **told})
    else:
        print(place)
    return 0
