"""`mm export`: a whole model as files, from a registered version, a training or a checkpoint."""

from dataclasses import asdict
from typing import Annotated

import typer

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json
from mmcore.errors import ConfigError
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="stamps/3, stamps@champion, or where a training or checkpoint is"
        ),
    ],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A new directory or prefix")],
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Write a whole model to a directory: weights, description, tokenizer, labels, card.

    Of a training that is not finished the newest checkpoint that verifies is taken.
    """
    url, card = model, ""
    if not _is_place(model):
        url, card = _registered(model, absolute_root(root))
    # loads torch
    from mmcore.train.export import export_model

    exported = export_model(url, directory, card=card)
    if as_json:
        print_json("export", asdict(exported))
        return 0
    for name in sorted(exported.files):
        print(storage.join(directory, name))
    print(f"from {exported.source}, after {exported.step} steps")
    return 0


def _is_place(model: str) -> bool:
    return not storage.is_local(model) or bool(storage.list_files(model))


def _registered(model: str, root: str) -> tuple[str, str]:
    """Return where a registered version was trained, and its card."""
    from mmcore.telemetry.model_registry import ModelRegistry

    registry = ModelRegistry(root)
    name, at, alias = model.partition("@")
    number: int | None = None
    if at:
        number = registry.aliases(name).get(alias)
    else:
        name, _, text = model.rpartition("/")
        number = int(text) if text.isdecimal() else None
    versions = registry.versions(name) if name and number is not None else []
    found = next((version for version in versions if version.version == number), None)
    if found is None:
        raise ConfigError(
            f"{model!r} is no version of a model, and no directory with one. Write it as in: "
            "mm export stamps/3 DIR. `mm models` lists the versions."
        )
    steps = storage.join(root, "steps")
    for graph in storage.list_directories(steps):
        url = storage.join(steps, graph, "train", found.run_key[:16])
        if storage.exists(storage.join(url, "manifest.json")):
            return url, found.description
    raise ConfigError(
        f"the training that made {model} is not below {root} any more. Its files lie in the "
        f"registry: {found.source}."
    )
