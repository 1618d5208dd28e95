"""`mm explain`: the whole story of one sample."""

from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.explain import explain as explain_sample
from mmcore.core.explain import find_keys
from mmcore.core.lineage import find_dataset
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def explain(
    sample: Annotated[
        str, typer.Argument(metavar="SAMPLE", help="A key, or the name it had in the corpus")
    ],
    dataset: Annotated[
        str | None, typer.Option(help="NAME or NAME/VERSION; default: the newest dataset")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Say where a sample came from, what was measured, which rule dropped it or where it lies,
    and which models learned from it.
    """
    root = absolute_root(root)
    found = find_dataset(root, dataset)
    stories: list[Any] = [
        explain_sample(root, found, key) for key in find_keys(root, found, sample)
    ]
    if as_json:
        print_json("explain", {"samples": stories})
        return 0
    for story in stories:
        print("\n".join(_lines(story)), end="\n\n")
    say(f"{len(stories)} sample{'s' if len(stories) != 1 else ''} of {found}")
    return 0


def _lines(story: dict[str, Any]) -> list[str]:
    lines = [f"{story['key']}: {story['status']}"]
    decided = story["decided_by"]
    if decided:
        twin = f"; outlived by {decided['twin']}" if decided["twin"] else ""
        why = f"{decided['reason']}{': ' + decided['detail'] if decided['detail'] else ''}"
        lines.append(f"  why      {why}{twin}  (rule {decided['rule']}, step {decided['step']})")
    source = story["source"]
    lines.append(
        f"  from     {source['original_key']}, licence {source['licence']}, {source['source']}"
    )
    for extension, ref in source["parts"].items():
        lines.append(
            f"           {extension}: {ref['base']}:{ref['path']}  sha256 {ref['sha256'][:16]}"
        )
    if story["scores"]:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in sorted(story["scores"].items()))
        lines.append(f"  scores   {scores}")
    shard = story["shard"]
    if shard:
        lines.append(f"  split    {shard['split']}")
        lines.append(f"  shard    {shard['url']}, sample {shard['index']}")
        lines += [
            f"           {part['extension']}: offset {part['offset']}, "
            f"{part['num_bytes']} bytes, sha256 {part['sha256'][:16]}"
            for part in shard["parts"]
        ]
    for model in story["models"]:
        names = (
            ", ".join(model["versions"]) or f"train {model['train_fingerprint'][:16]}, unregistered"
        )
        times = f", {model['times_read']} times" if model["times_read"] else ""
        lines.append(f"  model    {names}: {model['role']}{times}")
    return lines
