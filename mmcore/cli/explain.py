"""`mm explain`: the whole story of one sample."""

from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.explain import explain as explain_sample
from mmcore.core.explain import find_keys
from mmcore.core.lineage import find_dataset
from mmcore.errors import ConfigError
from mmcore.recipe.execute import absolute_root

app = new_app()
_MAX_NAMED = 10


@app.command()
def explain(
    sample: Annotated[
        str | None,
        typer.Argument(metavar="[SAMPLE]", help="A key, or the name it had in the corpus"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="NAME or NAME/VERSION; default: the newest dataset")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="NAME/VERSION: every dataset version it learned from")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="With --model: the samples of that step, in order")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Say where a sample came from, what was measured, which rule dropped it or where it lies,
    and which models learned from it; or of a model, what it learned from, to the step.
    """
    root = absolute_root(root)
    if (sample is None) == (model is None) or (step is not None and model is None):
        raise ConfigError(
            "say what is to be explained: a SAMPLE, or --model NAME/VERSION with --step N or not."
        )
    if model is not None:
        return _explain_model(root, model, step, as_json=as_json)
    assert sample is not None, "one of both is there"
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


def _explain_model(root: str, model: str, step: int | None, *, as_json: bool) -> int:
    from mmcore.recipe.learned import find_learned

    found = find_learned(root, model)
    told: dict[str, Any] = {
        "model": model,
        "train_fingerprint": found.train.manifest.fingerprint,
        "datasets": found.datasets,
        "step": step,
        "samples": None if step is None else found.samples(step),
    }
    if as_json:
        print_json("explain.model", told)
        return 0
    print(f"{model}: train {told['train_fingerprint'][:16]}")
    for one in told["datasets"]:
        part = f" as {one['in_mix']}" if one["in_mix"] else ""
        share = "".join(f", {name} {one[name]:g}" for name in ("weight", "repeats") if one[name])
        print(f"  learned  {one['dataset']}{part}{share}: {one['num_samples']} samples")
    for place, one in enumerate(told["samples"] or ()):
        again = f", time {one['visit'] + 1}" if one["visit"] else ""
        print(f"  {place:>7}  {one['dataset']} {one['key']}{again}")
    return 0


def _lines(story: dict[str, Any]) -> list[str]:
    lines = [f"{story['key']}: {story['status']}"]
    if story["forgotten"]:
        wish = story["forgotten"]
        lines.append(f"  why      {wish['why']}  (asked for by {wish['by']}, {wish['at']})")
    decided = story["decided_by"]
    if decided:
        twin = f"; outlived by {decided['twin']}" if decided["twin"] else ""
        why = f"{decided['reason']}{': ' + decided['detail'] if decided['detail'] else ''}"
        lines.append(f"  why      {why}{twin}  (rule {decided['rule']}, step {decided['step']})")
    if story["source"]:
        lines += _source_lines(story["source"])
    if story["scores"]:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in sorted(story["scores"].items()))
        lines.append(f"  scores   {scores}")
    if story["outlived"]:
        lines.append(f"  outlived {_some(story['outlived'])}")
    if story["increment"] and story["increment"]["of"] > 1:
        one = story["increment"]
        lines.append(f"  came     with increment {one['number']} of {one['of']}, {one['dataset']}")
    for one in story["earlier"]:
        lines.append(f"  before   {one['status']} in {one['dataset']}, as it was then")
    shard = story["shard"]
    if shard:
        lines.append(f"  split    {shard['split']}")
        lines.append(f"  shard    {shard['url']}, sample {shard['index']}")
        lines += [
            f"           {part['extension']}: offset {part['offset']}, "
            f"{part['num_bytes']} bytes, sha256 {part['sha256'][:16]}"
            for part in shard["parts"]
        ]
    for one in story["tombstones"]:
        place = f"{one['dataset']} {one['shard']}, sample {one['index']}"
        lines.append(f"  dead     {place}: {one['reason']}")
    for model in story["models"]:
        names = (
            ", ".join(model["versions"]) or f"train {model['train_fingerprint'][:16]}, unregistered"
        )
        times = f", {model['times_read']} times" if model["times_read"] else ""
        lines.append(f"  model    {names}: {model['role']}{times}")
    return lines


def _source_lines(source: dict[str, Any]) -> list[str]:
    head = f"{source['original_key']}, licence {source['licence']}, {source['source']}"
    parts = [
        f"           {extension}: {ref['base']}:{ref['path']}  sha256 {ref['sha256'][:16]}"
        for extension, ref in source["parts"].items()
    ]
    return [f"  from     {head}", *parts]


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
    return ", ".join(keys[:_MAX_NAMED]) + more
