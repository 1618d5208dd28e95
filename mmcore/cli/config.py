"""`mm config`: what a recipe says once everything is merged, and what recipes may say."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import AsJson, Overrides, Recipe, print_json
from mmcore.config import Origin, Path_
from mmcore.recipe.build import has_several_rules, load_recipe
from mmcore.recipe.jsonschema import INTERNAL_FIELDS, recipe_schema

app = new_app()


@app.callback()
def config() -> None:
    """Show a recipe as it is understood, or the schema of recipes."""


@app.command()
def show(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value comes from")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Show the merged recipe, checked, with every default filled in."""
    loaded = load_recipe(recipe, overrides=overrides)
    resolved = _resolved(loaded.recipe.model_dump(by_alias=True), loaded.graph.steps)
    rows = list(_leaves(resolved))
    origins = {path: str(loaded.loaded.origins.get(path, Origin("default"))) for path, _ in rows}
    if as_json:
        values = {".".join(map(str, path)): value for path, value in rows}
        named = {".".join(map(str, path)): said for path, said in origins.items()}
        print_json("config", {"values": values, "origins": named if origin else {}})
        return 0
    width = max(len(_spell(path, value)) for path, value in rows)
    for path, value in rows:
        line = _spell(path, value)
        print(f"{line:<{width}}  # {origins[path]}" if origin else line)
    return 0


@app.command()
def schema() -> int:
    """Print the JSON Schema of recipes, for editors."""
    print(json.dumps(recipe_schema(), indent=1, sort_keys=True))
    return 0


def _resolved(recipe: dict[str, Any], steps: Any) -> dict[str, Any]:
    """Fill in the defaults of components, which only their classes know."""
    works = {step.name: step.work for step in steps}
    for section in ("clean", "encode"):
        for name, stage in zip(recipe[section], works[section].stages, strict=True):
            recipe[section][name] = _over(_fields_of(stage), recipe[section][name])
    recipe["source"]["layout"] = _over(
        _fields_of(works["ingest"].layout), recipe["source"]["layout"]
    )
    if "dedup" in works and has_several_rules(recipe["dedup"]):
        for name, rule in zip(recipe["dedup"], works["dedup"].rules, strict=True):
            recipe["dedup"][name] = _over(_fields_of(rule), recipe["dedup"][name])
    elif "dedup" in works:
        recipe["dedup"] = _over(_fields_of(works["dedup"].rules[0]), recipe["dedup"])
    recipe["split"] = _over(_fields_of(works["split"].rules[0]), recipe["split"])
    for section in ("tokenizer", "shard", "evaluate", "register"):
        if section in works:
            fields = _fields_of(works[section])
            own = {name: fields[name] for name in fields if name not in INTERNAL_FIELDS}
            recipe[section] = _over(own, recipe[section])
    if "train" in works:
        work = works["train"]
        for section, value in (
            ("model", work.model),
            ("train", work.train),
            ("loader", work.loader),
        ):
            recipe[section] = _over(_fields_of(value), recipe[section])
    return recipe


def _fields_of(value: Any) -> dict[str, Any]:
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        name: _fields_of(inner) if dataclasses.is_dataclass(inner) else inner
        for name, inner in found.items()
    }


def _over(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in (given or {}).items():
        below = merged.get(name)
        merged[name] = (
            _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


def _leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _spell(path: Path_, value: Any) -> str:
    return f"{'.'.join(map(str, path))}: {json.dumps(value, ensure_ascii=False)}"
