"""Recipes: every mistake at once with its place, and an identity that no placement changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from my_stages import MaxChars

from mmcore.clean.image import MinSide
from mmcore.core.corpus_work import CorpusWork
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.increment import Ground
from mmcore.core.manifest import Counts, Manifest
from mmcore.core.map_work import MapWork
from mmcore.core.step import Artifact
from mmcore.dedup.exact import ExactDuplicates
from mmcore.dedup.near import NearDuplicates
from mmcore.errors import ConfigError
from mmcore.recipe.build import LoadedRecipe, load_recipe
from mmcore.shard.work import ShardWork

Write = Callable[..., str]
CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "recipes").glob("*.yaml"))
MODEL = """
model: {}
train: {epochs: 1}
"""


def stages_of(loaded: LoadedRecipe, step: str) -> tuple[object, ...]:
    work = loaded.graph.step(step).work
    assert isinstance(work, MapWork)
    return work.stages


def complaint(file: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(file, overrides=overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def fingerprints(file: str, *overrides: str) -> dict[str, str]:
    graph = load_recipe(file, overrides=overrides).graph
    scan = Artifact("", Manifest("scan", "0" * 64, {}, Counts(), ()))
    return {name: print_ for name, (print_, _) in graph.identities(Ground(scan)).items()}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_recipe_loads(file: Path) -> None:
    loaded = load_recipe(str(file))
    assert [step.name for step in loaded.graph.steps][:2] == ["ingest", "clean"]
    assert loaded.recipe.name in file.stem


def test_there_are_shipped_recipes() -> None:
    assert CONFIGS


def test_a_recipe_without_a_model_ends_with_the_dataset(recipe: Write) -> None:
    steps = load_recipe(recipe()).graph.steps
    assert [step.name for step in steps] == [
        "ingest", "clean", "dedup", "split", "tokenizer", "encode", "shard",
    ]  # fmt: skip


def test_a_recipe_with_a_model_ends_in_the_registry(recipe: Write) -> None:
    steps = load_recipe(recipe(more=MODEL)).graph.steps
    assert [step.name for step in steps][-4:] == ["shard", "train", "evaluate", "register"]


def test_a_recipe_without_dedup_and_tokenizer_has_no_such_steps(recipe: Write) -> None:
    file = recipe(("dedup:\n  same: [image, audio]\n", ""), ("tokenizer: {vocab_size: 300}\n", ""))
    graph = load_recipe(file).graph
    assert [step.name for step in graph.steps] == ["ingest", "clean", "split", "encode", "shard"]
    assert graph.step("split").inputs == ("clean",)


SEVERAL = """dedup:
  exact_duplicates: {same: [image, audio]}
  near_duplicates:
  wordy: {use: near_duplicates, max_distance: {}, min_similarity: {text: 0.9}}
"""
ONE = "dedup:\n  same: [image, audio]\n"


def test_dedup_takes_several_rules_in_their_order(recipe: Write) -> None:
    loaded = load_recipe(recipe((ONE, SEVERAL)), overrides=["dedup.wordy.min_similarity.text=0.7"])
    work = loaded.graph.step("dedup").work
    assert isinstance(work, CorpusWork)
    assert work.rules == (
        ExactDuplicates(same=("image", "audio")),
        NearDuplicates(),
        NearDuplicates(max_distance={}, min_similarity={"text": 0.7}),
    )


def test_one_rule_and_the_same_rule_by_name_are_one_recipe(recipe: Write) -> None:
    one = fingerprints(recipe())
    named = recipe((ONE, "dedup:\n  exact_duplicates: {same: [image, audio]}\n"))
    assert fingerprints(named) == one


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("near_duplicate:", "dedup.near_duplicate: no stage of that name. Did you mean 'near_duplicates'?"),
        ("min_side: {min_side: 3}", "dedup.min_side: MinSide is no CorpusRule"),
        ("near_duplicates: {max_distance: {image: 40}}", "dedup.near_duplicates: near_duplicates.max_distance.image=40"),
        ("same: [image]", "dedup.exact_duplicates: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_in_one_of_several_rules_is_refused(recipe: Write, new: str, said: str) -> None:
    several = f"dedup:\n  exact_duplicates: {{same: [image]}}\n  {new}\n"
    assert said in complaint(recipe((ONE, several)))


def test_the_shards_are_checked_by_the_limits_of_the_split(recipe: Write) -> None:
    near = "  max_distance: {image: 5}\n  stratify:"
    shard = load_recipe(recipe(("  stratify:", near))).graph.step("shard").work
    assert isinstance(shard, ShardWork)
    assert shard.max_distance == {"image": 5}


def test_a_stage_is_named_by_a_short_name_or_by_an_import_path(recipe: Write) -> None:
    file = recipe(("  decode_audio:\n", "  long: {use: my_stages.MaxChars, max_chars: 80}\n"))
    stages = stages_of(load_recipe(file), "clean")
    assert MinSide(min_side=16) in stages
    assert stages[-1] == MaxChars(max_chars=80)


def test_a_stage_by_import_path_is_reached_by_set_under_its_own_name(recipe: Write) -> None:
    file = recipe(("  decode_audio:\n", "  long: {use: 'my_stages:MaxChars', max_chars: 80}\n"))
    loaded = load_recipe(
        file, overrides=["clean.long.max_chars=7", "clean.decode_image.max_side=99"]
    )
    assert stages_of(loaded, "clean")[-1] == MaxChars(max_chars=7)


def test_a_stage_that_wants_the_recipes_tokenizer_reads_its_step(recipe: Write) -> None:
    file = recipe(("  encode_text:\n", "  encode_text:\n  token_ids: {max_tokens: 8}\n"))
    step = load_recipe(file).graph.step("encode")
    assert set(step.inputs) == {"split", "tokenizer"}
    without = recipe(
        ("tokenizer: {vocab_size: 300}\n", ""),
        ("  encode_text:\n", "  encode_text:\n  token_ids: {max_tokens: 8}\n"),
    )
    assert "encode: a stage wants the recipe's tokenizer" in complaint(without)


def test_limits_of_a_sample_hold_where_it_is_read_and_decoded_and_are_part_of_the_identity(
    recipe: Write,
) -> None:
    before = fingerprints(recipe())
    file = recipe(more="\nlimits: {seconds: 7}\n")
    for name in ("clean", "encode"):
        work = load_recipe(file).graph.step(name).work
        assert isinstance(work, MapWork)
        assert work.limits == DecoderLimits(seconds=7)
    after = fingerprints(file)
    assert before["ingest"] != after["ingest"]
    assert before["clean"] != after["clean"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 3", "seed: 3\nlimits: {second: 3}", "limits.second: unknown key. Did you mean 'seconds'?"),
        ("seed: 3", "seed: 3\nlimits: {memory_mb: 0}", "limits.memory_mb=0. Use more than 0"),
        ("min_side: {min_side: 16}", "min_sid: {}", "clean.min_sid: no stage of that name. Did you mean 'min_side'?"),
        ("{min_side: 16}", "{min_sid: 16}", "clean.min_side.min_sid: unknown key. Did you mean 'min_side'?"),
        ("{min_side: 16}", "{min_side: wide}", "clean.min_side.min_side: Input should be a valid integer"),
        ("use: folder", "use: foldr", "source.layout.foldr: no stage of that name. Did you mean 'folder'?"),
        ("use: folder", "use: 3", "source.layout.use: expected a name, found 3"),
        ("use: folder", "use: group_split", "source.layout: GroupSplit is no Layout"),
        ("  decode_audio:", "  x: {use: min_max}", "clean.x.min_max: no stage of that name"),
        ("  decode_audio:", "  x: {use: group_split, together: [image]}", "clean.x: GroupSplit is no Stage"),
        ("  decode_audio:", "  x: {use: not_there.Stage}", "cannot import not_there.Stage: No module named 'not_there'"),
        ("  decode_audio:", "  x: {use: my_stages.Nothing}", "module my_stages has no class Nothing"),
        ("  decode_audio:", "  x: {use: my_stages.not_a_class}", "my_stages.not_a_class is not a class"),
        ("  decode_audio:", "  x: {use: ..Stage}", "neither a name nor an import path"),
        ("  decode_audio:", "  x: {use: my_stages.MaxChars}", "clean.x.max_chars: this key is required"),
        ("same: [image, audio]", "same: [imag]", "dedup: exact_duplicates.same: 'imag' is nothing"),
        ("stratify:", "stratifi:", "split.stratifi: unknown key. Did you mean 'stratify'?"),
        ("vocab_size: 300", "vocab: 300", "tokenizer.vocab: unknown key"),
        ("samples_per_shard: 6", "samples_per_shard: 0", "shard: shard.samples_per_shard=0"),
        ("name: tiny", "name: Tiny!", "name: String should match pattern"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_what_was_meant(
    recipe: Write, old: str, new: str, said: str
) -> None:
    assert said in complaint(recipe((old, new)))


def test_all_mistakes_of_a_recipe_are_said_in_one_error_each_with_its_line(recipe: Write) -> None:
    file = recipe(
        ("seed: 3", "sead: 3"),
        ("{min_side: 16}", "{min_sid: 16}"),
        ("use: folder", "use: foldr"),
        ("{rate_hz: 16000,", "{rate: 16000,"),
        more="placement: {num_ranks: 0}\n",
    )
    lines = complaint(file).splitlines()
    assert len(lines) == 5
    places = {line.split(": ")[1]: line.split(": ")[0] for line in lines}
    assert places["sead"] == f"{file}:2:1"
    assert places["source.layout.foldr"] == f"{file}:6:3"
    assert places["clean.min_side.min_sid"] == f"{file}:10:14"
    assert places["encode.encode_audio.rate"] == f"{file}:20:18"
    assert places["placement.num_ranks"].startswith(f"{file}:24:")


def test_a_model_needs_a_tokenizer(recipe: Write) -> None:
    file = recipe(("tokenizer: {vocab_size: 300}\n", ""), more=MODEL)
    assert "model: a model needs a tokenizer" in complaint(file)


def test_where_it_runs_and_where_the_corpus_lies_change_no_fingerprint(
    recipe: Write, tmp_path: Path
) -> None:
    file = recipe(more=MODEL)
    before = fingerprints(file)
    elsewhere = f"source.path={tmp_path / 'another'}"
    assert fingerprints(file, "placement.num_ranks=4", elsewhere, "source.hint=ask") == before
    assert fingerprints(file, "source.path=s3://bucket/corpus") == before


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("source.layout.licence=mit", "ingest"),
        ("clean.min_side.min_side=17", "clean"),
        ("dedup.same=[image]", "dedup"),
        ("seed=4", "split"),
        ("tokenizer.vocab_size=301", "tokenizer"),
        ("encode.encode_audio.max_seconds=0.9", "encode"),
        # pictures are encoded while cleaning has them decoded
        ("encode.encode_image.side=33", "clean"),
        ("shard.samples_per_shard=7", "shard"),
        ("train.epochs=2", "train"),
    ],
)
def test_a_setting_changes_its_own_step_and_none_before_it(
    recipe: Write, override: str, first: str
) -> None:
    file = recipe(more=MODEL)
    before, after = fingerprints(file), fingerprints(file, override)
    changed = [name for name in before if before[name] != after[name]]
    assert changed[0] == first
    assert changed[-1] == "register"


def test_the_order_of_keys_changes_no_fingerprint_but_that_of_stages_does(recipe: Write) -> None:
    before = fingerprints(recipe())
    swapped = recipe(("{use: folder, label_from: folder, licence: cc0-1.0}",
                      "{licence: cc0-1.0, label_from: folder, use: folder}"))  # fmt: skip
    assert fingerprints(swapped) == before
    moved = recipe(("  decode_audio:\n", ""), ("clean:\n", "clean:\n  decode_audio:\n"))
    assert fingerprints(moved)["clean"] != before["clean"]


def test_an_unknown_step_to_stop_after_is_refused(recipe: Write) -> None:
    graph = load_recipe(recipe()).graph
    with pytest.raises(
        ConfigError, match=r"tiny has no step 'shards'. Its steps are: scan, ingest, .*shard"
    ):
        graph.upstream("shards")


@pytest.mark.parametrize(
    "section",
    [
        "source",
        "tokenizer",
        "shard",
        "loader",
        "model",
        "train",
        "evaluate",
        "register",
        "placement",
    ],
)
def test_no_section_takes_a_key_that_it_does_not_know(recipe: Write, section: str) -> None:
    file = recipe(more=MODEL)
    assert f"{section}.no_such_key: unknown key" in complaint(file, f"{section}.no_such_key=1")
