"""The JSON Schema of recipes, with the fields of every component that has a short name."""

from collections.abc import Mapping
from typing import Any

from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.stage import CorpusRule, Stage
from mmcore.encode.tokenizer import TokenizerWork
from mmcore.evaluate.work import EvaluateWork
from mmcore.ingest.layout import Layout
from mmcore.load.batches import MultimodalLoader
from mmcore.models.config import ModelConfig
from mmcore.recipe.components import SHORT_NAMES, find_class, json_schema
from mmcore.recipe.schema import Recipe
from mmcore.register.work import RegisterWork
from mmcore.shard.work import ShardWork
from mmcore.train.config import TrainConfig

INTERNAL_FIELDS = ("step", "samples_from", "runs_in_driver", "loader", "code_version")
_GIVEN = ("name", "model_name")  # by the recipe, where a section does not say them


def recipe_schema() -> dict[str, Any]:
    """Return the schema that editors complete and check recipes with."""
    schema = Recipe.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    properties: dict[str, Any] = schema["properties"]
    properties["extends"] = {"type": ["string", "array"], "items": {"type": "string"}}
    # what a recipe leaves out may be in one that it extends
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["extends"]}]
    stages = _or_null(_by_name(Stage, definitions))
    chain = {
        "type": "object",
        "properties": stages,
        # another name is a name for --set alone, and says which stage it is
        "additionalProperties": {"type": "object", "required": ["use"]},
    }
    properties["clean"] = properties["encode"] = chain
    definitions["SourceSection"]["properties"]["layout"] = _any_of(Layout, definitions)
    properties["split"] = _any_of(CorpusRule, definitions)
    rules = {
        "type": "object",
        "properties": _or_null(_by_name(CorpusRule, definitions)),
        "additionalProperties": {"type": "object", "required": ["use"]},
        "minProperties": 1,
    }
    properties["dedup"] = {"anyOf": [*_any_of(CorpusRule, definitions)["anyOf"], rules]}
    sections: Mapping[str, type[Any]] = {
        "limits": DecoderLimits,
        "tokenizer": TokenizerWork,
        "shard": ShardWork,
        "loader": MultimodalLoader,
        "model": ModelConfig,
        "train": TrainConfig,
        "evaluate": EvaluateWork,
        "register": RegisterWork,
    }
    for name, cls in sections.items():
        properties[name] = _fields_schema(cls, definitions)
    return schema


def _by_name(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name in SHORT_NAMES:
        cls = find_class(name, ())
        if issubclass(cls, kind):
            found[name] = _fields_schema(cls, definitions)
    return found


def _or_null(by_name: dict[str, Any]) -> dict[str, Any]:
    """Let those be null that have nothing to say."""
    return {
        name: {"anyOf": [schema, {"type": "null"}]} if not schema["required"] else schema
        for name, schema in by_name.items()
    }


def _any_of(kind: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    for name, schema in _by_name(kind, definitions).items():
        use = {"enum": [name]}
        options.append({**schema, "properties": {"use": use, **schema.get("properties", {})}})
    elsewhere = {"use": {"type": "string", "not": {"enum": sorted(SHORT_NAMES)}}}
    options.append({"type": "object", "properties": elsewhere, "required": ["use"]})
    return {"anyOf": options}


def _fields_schema(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = json_schema(cls)
    definitions |= schema.pop("$defs", {})
    for name in INTERNAL_FIELDS:
        schema.get("properties", {}).pop(name, None)
    schema["required"] = [
        name for name in schema.get("required", []) if name not in (*INTERNAL_FIELDS, *_GIVEN)
    ]
    return schema
