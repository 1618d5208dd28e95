"""A bad optional part costs the part, from the raw files to the batches of a model."""

from pathlib import Path
from typing import Any

import pytest
from corpus import NUM_SOUND, RECIPE, write_corpus

from mmcore.core.runner import Run, StepResult
from mmcore.core.step import Inputs
from mmcore.executors.local import LocalExecutor
from mmcore.load.batches import MultimodalLoader
from mmcore.recipe.build import load_recipe
from mmcore.shard.reader import find_sample
from mmcore.shard.work import ShardWork

NUM_BAD = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepResult]:
    """A dataset of which one sound is broken, one is cut off and one is not there."""
    directory = tmp_path_factory.mktemp("optional")
    corpus = write_corpus(directory / "corpus")
    red = corpus / "red"
    (red / "002.flac").write_bytes(b"fLaC" + bytes(60))
    (red / "004.flac").write_bytes((red / "004.flac").read_bytes()[:900])
    (red / "006.flac").unlink()
    text = RECIPE.format(corpus=corpus).replace(
        "required: [image, text, audio]", "required: [image, text], optional: [audio]"
    )
    recipe = directory / "tiny.yaml"
    recipe.write_text(text)
    graph = load_recipe(str(recipe)).graph
    return Run(graph, root=str(directory / "root"), executor=LocalExecutor()).run()


def test_samples_with_a_bad_optional_part_keep_the_rest_and_say_so(
    made: dict[str, StepResult],
) -> None:
    clean, shard = made["clean"].artifact.manifest, made["shard"].artifact
    assert sum(clean.counts.quarantined.values()) == 1  # the picture that is none
    facts: Any = shard.manifest.facts
    assert sum(facts["num_samples"].values()) == NUM_SOUND
    assert facts["optional_extensions"] == ["flac"]
    said = {}
    for key in ("red__002", "red__004", "red__006", "red__008"):
        stored = find_sample(shard.url, key)
        assert stored is not None, key
        has_sound = "flac" in {part.extension for part in stored.parts}
        dropped: Any = stored.meta.get("dropped_parts", {})
        said[key] = (has_sound, {name: why.split(":")[0] for name, why in dropped.items()})
    assert said == {
        "red__002": (False, {"flac": "audio_undecodable"}),
        "red__004": (False, {"flac": "audio_undecodable"}),
        "red__006": (False, {}),
        "red__008": (True, {}),
    }


def test_batches_say_which_samples_have_no_sound(made: dict[str, StepResult]) -> None:
    artifacts = {name: made[name].artifact for name in ("shard", "tokenizer")}
    inputs = Inputs(artifacts, {})
    loader = MultimodalLoader(image_side=16, num_mels=8)
    with_sound = without = 0
    for split in ("train", "val", "test"):
        for batch in loader.open(inputs).in_order(split, batch_size=5):
            with_sound += int(batch.arrays["has_audio"].sum())
            without += int((~batch.arrays["has_audio"]).sum())
    assert (with_sound, without) == (NUM_SOUND - NUM_BAD, NUM_BAD)


def test_a_recipe_declares_optional_parts_once(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    base = RECIPE.format(corpus=tmp_path)
    optional = base.replace("text, audio]", "text], optional: [audio]")
    for text, wanted in ((base, ()), (optional, ("audio",))):
        recipe.write_text(text)
        work = load_recipe(str(recipe)).graph.step("shard").work
        assert isinstance(work, ShardWork)
        assert work.optional == wanted
