"""Captions in several languages: one sample, or one each, and nothing lost or doubled."""

import io
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcore.core.rows import read_kept, read_rows
from mmcore.core.runner import Run, StepResult
from mmcore.errors import StepError
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.captions import language_tag, one_per_caption
from mmcore.recipe.build import load_recipe
from mmcore.sample import Dropped, Part, Sample

RECIPE = """\
name: many
seed: 1
source:
  path: {corpus}
  samples_per_task: 5
  captions: {captions}
  layout: {{use: folder, caption_languages: [en, fr, pt-BR]}}
clean:
  require_parts: {{required: [image, text]}}
  decode_image:
  repair_caption:
dedup: {{same: [image, "meta:language"]}}
split: {{together: ["meta:caption"], fractions: {{train: 0.5, test: 0.5}}}}
encode:
  encode_image: {{side: 16, format: png}}
shard: {{samples_per_shard: 6, together: ["meta:expanded_from"]}}
"""
NUM_PICTURES = 12


def write_corpus(directory: Path) -> Path:
    """Twelve pictures: three captions each, but of every fourth, which has a plain one."""
    directory.mkdir()
    for i in range(NUM_PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = io.BytesIO()
        Image.fromarray(pixels).save(picture, "PNG")
        (directory / f"cat{i:02d}.png").write_bytes(picture.getvalue())
        languages = ("",) if i % 4 == 0 else (".en", ".fr", ".pt-BR")
        for language in languages:
            (directory / f"cat{i:02d}{language}.txt").write_text(f"cat {i} in {language}")
    return directory


def make(directory: Path, captions: str, *, targets: tuple[str, ...] = ()) -> dict[str, StepResult]:
    recipe = directory / f"{captions}.yaml"
    recipe.write_text(RECIPE.format(corpus=directory / "corpus", captions=captions))
    graph = load_recipe(str(recipe)).graph
    return Run(graph, root=str(directory / captions), executor=LocalExecutor()).run(targets)


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepResult]:
    directory = tmp_path_factory.mktemp("captions")
    write_corpus(directory / "corpus")
    return make(directory, "each")


def test_a_sample_with_three_captions_becomes_three_and_every_one_is_counted(
    each: dict[str, StepResult],
) -> None:
    manifest = each["ingest"].artifact.manifest
    with_three = NUM_PICTURES - NUM_PICTURES // 4
    assert manifest.facts["expanded"] == {"samples": with_three, "into": 3 * with_three}
    num_found = NUM_PICTURES // 4 + 3 * with_three
    assert manifest.counts.found == manifest.counts.kept == num_found
    for step in ("clean", "dedup", "split", "encode", "shard"):
        counts = each[step].artifact.manifest.counts
        assert (counts.found, counts.kept) == (num_found, num_found), step
    keys = [row.sample.key for row in read_rows(each["ingest"].artifact)]
    assert len(keys) == len(set(keys))
    assert {"cat00", "cat01-en", "cat01-fr", "cat01-pt-br"} <= set(keys)


def test_each_has_the_picture_its_own_caption_and_its_language(each: dict[str, StepResult]) -> None:
    samples = {sample.key: sample for sample in read_kept(each["ingest"].artifact)}
    french = samples["cat01-fr"]
    assert sorted(french.parts) == ["png", "txt"]
    assert french.parts["png"] == samples["cat01-en"].parts["png"]
    assert french.parts["txt"] != samples["cat01-en"].parts["txt"]
    assert french.meta["language"] == "fr"
    assert samples["cat01-pt-br"].meta["language"] == "pt-BR"
    assert {samples[f"cat01-{tag}"].meta["caption_group"] for tag in ("en", "fr")} == {"cat01"}
    assert "expanded_from" not in samples["cat00"].meta


def test_what_was_one_sample_stays_on_one_side(each: dict[str, StepResult]) -> None:
    splits = defaultdict(set)
    for sample in read_kept(each["split"].artifact):
        splits[sample.meta.get("expanded_from", sample.key)].add(sample.meta["split"])
    assert len(splits) == NUM_PICTURES
    assert all(len(sides) == 1 for sides in splits.values())
    assert set().union(*splits.values()) == {"train", "test"}


def test_together_they_stay_one_sample(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    made = make(tmp_path, "together", targets=("ingest",))["ingest"].artifact
    assert made.manifest.counts.found == NUM_PICTURES
    assert "expanded" not in made.manifest.facts
    samples = {sample.key: sample for sample in read_kept(made)}
    assert sorted(samples["cat01"].parts) == ["en.txt", "fr.txt", "png", "pt-BR.txt"]


def test_a_name_that_a_caption_would_take_is_refused(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "cat01-fr.png").write_bytes((corpus / "cat00.png").read_bytes())
    with pytest.raises(StepError, match=r"1 keys would be there twice; the first is 'cat01-fr'"):
        make(tmp_path, "each", targets=("ingest",))


def test_two_captions_of_a_language_and_one_of_none_have_keys_of_their_own() -> None:
    parts = {name: Part(data=name.encode()) for name in ("a.en.txt", "b.en.txt", "txt", "wav")}
    found = [one for one in one_per_caption(Sample("k", parts)) if isinstance(one, Sample)]
    assert [one.key for one in found] == ["k-en", "k-en-2", "k-und"]
    assert [one.parts["txt"].data for one in found] == [b"a.en.txt", b"b.en.txt", b"txt"]
    assert all(sorted(one.parts) == ["txt", "wav"] for one in found)


def test_what_was_not_kept_and_what_names_no_language_stays_as_it_is() -> None:
    named = Sample("k", {"en.txt": Part(data=b"a")})
    plain = Sample("k", {"caption.txt": Part(data=b"a"), "title.txt": Part(data=b"b")})
    for outcome in (Dropped(named, "why"), plain):
        assert list(one_per_caption(outcome)) == [outcome]


@pytest.mark.parametrize(
    ("extension", "tag"),
    [
        ("en.txt", "en"),
        ("caption.txt", ""),
        ("en.wav", ""),
        ("txt", ""),
        ("x.zh-Hant.txt", "zh-Hant"),
    ],
)
def test_a_language_is_the_word_before_txt(extension: str, tag: str) -> None:
    assert language_tag(extension) == tag
