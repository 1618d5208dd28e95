"""Planted twins, whatever was done to them: found by dedup, and never on two sides of a split."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from mmcore.core.rows import Row, read_rows
from mmcore.core.runner import Run, StepResult
from mmcore.errors import IntegrityError
from mmcore.executors.local import LocalExecutor
from mmcore.ingest import scenes
from mmcore.ingest.answers import KnownAnswers, Planted
from mmcore.ingest.generate import make_corpus
from mmcore.recipe.build import load_recipe
from mmcore.shard.reader import read_part, read_samples

TWINS = (
    "exact_duplicate",
    "duplicate_picture",
    "near_duplicate",
    "cropped_picture",
    "reencoded_picture",
    "paraphrased_caption",
)
PLANTED = Planted(**{item.name: 0.05 if item.name in TWINS else 0.0 for item in fields(Planted)})
RECIPE = """\
name: twins
source: {{path: {corpus}, layout: {{use: folder, label_from: folder}}, samples_per_task: 50}}
clean:
  keep_parts: {{modalities: [image, text]}}
  sign_image:
  sign_text:
{dedup}
split:
  together: [image, text]
  {near}
  stratify: "meta:label"
  fractions: {{train: 0.4, val: 0.3, test: 0.3}}
encode:
  encode_image: {{side: 32}}
shard: {{samples_per_shard: 100}}
"""
DEDUP = """\
dedup:
  exact_duplicates: {same: [image, text]}
  near_duplicates:
    max_distance: {image: 8}
    min_similarity: {text: 0.8}
    prefer: image_pixels
"""
NEAR = "max_distance: {image: 8}\n  min_similarity: {text: 0.8}"
Made = tuple[Path, KnownAnswers]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    corpus = tmp_path_factory.mktemp("twins") / "corpus"
    answers = make_corpus(str(corpus), num_samples=120, seed=3, video_fraction=0.0, planted=PLANTED)
    return corpus, answers


def run(
    directory: Path, corpus: Path, *, dedup: str = "", near: str = NEAR
) -> dict[str, StepResult]:
    file = directory / "twins.yaml"
    file.write_text(RECIPE.format(corpus=corpus, dedup=dedup, near=near))
    loaded = load_recipe(str(file))
    return Run(loaded.graph, root=str(directory / "root"), executor=LocalExecutor()).run()


def rows_of(made: Mapping[str, StepResult], step: str) -> dict[str, Row]:
    rows = read_rows(made[step].artifact)
    return {str(row.sample.meta["original_key"]): row for row in rows}


def test_every_planted_duplicate_is_found_and_nothing_else(made: Made, tmp_path: Path) -> None:
    corpus, answers = made
    done = run(tmp_path, corpus, dedup=DEDUP)
    rows = rows_of(done, "dedup")
    pairs = {
        frozenset((one.original_key, one.twin)) for kind in TWINS for one in answers.planted[kind]
    }
    key_of = {row.sample.key: original for original, row in rows.items()}
    found = {frozenset((one, key_of[row.twin])) for one, row in rows.items() if row.twin}
    assert len(pairs) == 6 * len(TWINS)
    assert found >= pairs
    # the short captions are few: some are there twice, or differ in one word of twelve
    for pair in found - pairs:
        one, other = (set((corpus / f"{key}.txt").read_text().split()) for key in pair)
        assert len(one ^ other) <= 2
    counts = done["dedup"].artifact.manifest.counts
    assert counts.dropped == {
        "exact_duplicate": 6,
        "near_duplicate_image": 24,
        "near_duplicate_text": 6 + len(found - pairs),
    }
    assert {row.rule for row in rows.values() if row.reason == "exact_duplicate"} == {
        "exact_duplicates"
    }
    # the copy of 80 % has fewer pixels
    for one in answers.planted["near_duplicate"]:
        assert rows[one.original_key].twin == rows[one.twin].sample.key


def test_planted_twins_never_cross_a_split(made: Made, tmp_path: Path) -> None:
    corpus, answers = made
    done = run(tmp_path, corpus)
    split = {key: row.sample.meta["split"] for key, row in rows_of(done, "split").items()}
    assert set(split.values()) == {"train", "val", "test"}
    for kind in TWINS:
        for one in answers.planted[kind]:
            assert split[one.original_key] == split[one.twin], (kind, one)


def test_without_limits_twins_do_cross_and_the_check_before_publication_says_so(
    made: Made, tmp_path: Path
) -> None:
    corpus, _ = made
    done = run(tmp_path, corpus, near="")
    assert done["shard"].artifact.manifest.counts.kept == 120
    file = tmp_path / "twins.yaml"
    text = file.read_text().replace(
        "samples_per_shard: 100", "samples_per_shard: 100, max_distance: {image: 8}"
    )
    file.write_text(text)
    loaded = load_recipe(str(file))
    with pytest.raises(
        IntegrityError, match=r"leak between splits; the first is image '\d+ of 64 bits'"
    ):
        Run(loaded.graph, root=str(tmp_path / "root"), executor=LocalExecutor()).run()


def test_prints_are_in_the_rows_and_not_in_the_shards(made: Made, tmp_path: Path) -> None:
    corpus, _ = made
    done = run(tmp_path, corpus)
    row = next(iter(rows_of(done, "split").values()))
    assert {"print_image", "print_text"} <= row.sample.meta.keys()
    artifact = done["shard"].artifact
    samples = read_samples(artifact.url)
    assert not any(name.startswith("print_") for one in samples for name in one.meta)
    assert b"print_" not in read_part(artifact.url, samples[0], "json")
    assert "print_" not in str(artifact.manifest.facts["schema"])


def test_a_newcomer_that_looks_like_an_old_sample_joins_its_split(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    none = Planted(**dict.fromkeys((item.name for item in fields(Planted)), 0.0))
    make_corpus(str(corpus), num_samples=30, seed=4, video_fraction=0.0, planted=none)
    first = run(tmp_path, corpus)
    old = {key: row.sample.meta for key, row in rows_of(first, "split").items()}
    chosen = {str(old[key]["split"]): key for key in sorted(old)}
    assert len(chosen) == 3
    for split, key in chosen.items():
        (file,) = (
            path
            for path in (corpus / key).parent.glob(f"{Path(key).name}.*")
            if path.suffix in (".png", ".jpg")
        )
        image = scenes.decoded(file.read_bytes())
        copy = scenes.resized(image, width=image.shape[1] * 3 // 4, height=image.shape[0] * 3 // 4)
        (corpus / "star" / f"new-{split}.jpg").write_bytes(scenes.to_jpeg(copy, quality=80))
        (corpus / "star" / f"new-{split}.txt").write_text(
            f"words that nobody wrote before, number {len(split)} {split}"
        )
    second = run(tmp_path, corpus)
    assert second["ingest"].artifact.manifest.counts.found == 3
    rows = rows_of(second, "split")
    for split, key in chosen.items():
        meta = rows[f"star/new-{split}"].sample.meta
        assert (meta["split"], meta["split_group"]) == (split, old[key]["split_group"])
    assert len(read_samples(second["shard"].artifact.url)) == 33
