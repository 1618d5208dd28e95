"""The JSON Schema of recipes agrees with what recipes are refused and taken for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mmcore.recipe.components import SHORT_NAMES
from mmcore.recipe.jsonschema import recipe_schema

jsonschema = pytest.importorskip("jsonschema")
Write = Callable[..., str]
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(file: str | Path) -> Any:
    return YAML(typ="safe", pure=True).load(Path(file))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_recipe_is_valid(validator: Any, file: Path) -> None:
    assert [error.message for error in validator.iter_errors(read(file))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 3", "sead: 3"),
        ("name: tiny\n", ""),
        ("seed: 3", "seed: three"),
        ("seed: 3", "seed: 3\nlimits: {second: 3}"),
        ("samples_per_task: 8", "samples_per_task: 0"),
        ("{min_side: 16}", "{min_sid: 16}"),
        ("{min_side: 16}", "{min_side: wide}"),
        ("use: folder, label_from", "use: folder, lable_from"),
        ("vocab_size: 300", "vocab: 300"),
        ("samples_per_shard: 6", "samples_per_shards: 6"),
    ],
)
def test_a_wrong_recipe_is_not_valid(validator: Any, recipe: Write, old: str, new: str) -> None:
    assert validator.is_valid(read(recipe()))
    assert not validator.is_valid(read(recipe((old, new))))


def test_several_rules_of_dedup_are_valid_and_a_wrong_field_in_one_is_not(
    validator: Any, recipe: Write
) -> None:
    several = "dedup:\n  exact_duplicates: {same: [image]}\n  near_duplicates: {prefer: sharp}\n"
    old = "dedup:\n  same: [image, audio]\n"
    assert validator.is_valid(read(recipe((old, several))))
    assert not validator.is_valid(read(recipe((old, several.replace("prefer", "prefers")))))


def test_every_short_name_can_be_looked_up(validator: Any) -> None:
    text = str(validator.schema)
    for name in SHORT_NAMES:
        assert f"'{name}'" in text or name == "multimodal"
