"""`mm forget`: nobody reads some samples any more, from now on."""

from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.cli.promote import person
from mmcore.core.forget import Asked, ask, find_dataset_name, mark_versions
from mmcore.core.forget import forget as put_in_force
from mmcore.core.forgotten import load_forgotten
from mmcore.errors import ConfigError
from mmcore.recipe.execute import absolute_root

app = new_app()
_MAX_NAMED = 10


@app.command()
def forget(
    samples: Annotated[
        list[str], typer.Argument(metavar="KEY...", help="Keys, or names they had in the corpus")
    ],
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stays in the ledger")],
    dataset: Annotated[
        str | None, typer.Option(help="NAME; needed when several datasets have a sample")
    ] = None,
    by: Annotated[str, typer.Option(metavar="NAME", help="Who asks; default: you")] = "",
    dry_run: Annotated[bool, typer.Option(help="Say what would be forgotten, and no more")] = False,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Forget samples: no reader gives them out from any version any more, no run takes them in
    again under this or another name, and the models that have seen them are listed.

    Samples with the same picture (without one: film, sound, text) go with them. The bytes stay in
    the shards until `mm compact NAME --purge`. Exit code 4: they were forgotten before.
    """
    if not why.strip():
        raise ConfigError("--why is empty. Say why, for whoever looks at the ledger in a year.")
    root = absolute_root(root)
    name = find_dataset_name(root, samples, dataset)
    before = load_forgotten(root, name)
    asked = ask(root, name, samples, before)
    if not asked.samples:
        mark_versions(root, name)
        say(f"nothing to do: {', '.join(samples)} of {name} was forgotten before")
        return NOTHING_TO_DO
    wish_id = "" if dry_run else put_in_force(root, name, asked, by=by or person(), why=why)
    if as_json:
        print_json("forget", _told(name, wish_id, asked))
    else:
        print("\n".join(_lines(name, asked)))
        say("nothing was forgotten (--dry-run)" if dry_run else _next(name, asked))
    return 0


def _told(name: str, wish_id: str, asked: Asked) -> dict[str, Any]:
    return {
        "dataset": name,
        "wish": wish_id or None,
        "samples": sorted(asked.samples),
        "copies": asked.copies,
        "versions": {str(one.version): dict(one.splits) for one in asked.held},
        "models": asked.models,
    }


def _lines(name: str, asked: Asked) -> list[str]:
    num_copies = len(asked.copies.keys() & asked.samples.keys())
    lines = [f"{len(asked.samples)} samples of {name}, {num_copies} of them by their bytes alone"]
    for key in list(asked.samples)[:_MAX_NAMED]:
        same = f"  the same bytes as {asked.copies[key]}" if key in asked.copies else ""
        lines.append(f"  {key}{same}")
    if len(asked.samples) > _MAX_NAMED:
        lines.append(f"  and {len(asked.samples) - _MAX_NAMED} more")
    for one in asked.held:
        splits = ", ".join(sorted(set(one.splits.values()))) or "under a tombstone"
        lines.append(f"  in       {one.version}: {len(one.places)} places ({splits})")
    for model in asked.models:
        named: Any = model
        versions = ", ".join(named["versions"]) or f"train {named['train_fingerprint'][:16]}"
        roles = "; ".join(f"{role}: {len(keys)} samples" for role, keys in named["roles"].items())
        lines.append(f"  model    {versions}: {roles}")
    return lines


def _next(name: str, asked: Asked) -> str:
    models = f" {len(asked.models)} models have seen them and do not forget: retrain."
    return (
        f"forgotten. The next run publishes {name} without them; mm compact {name} --purge deletes "
        f"the bytes.{models if asked.models else ''}"
    )
