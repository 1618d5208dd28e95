"""`mm explain`: every answer about a sample, and answers about every sample."""

from pathlib import Path

import pytest
from command import Made, Mm
from corpus import BROKEN, NUM_FOUND, ORIGINAL, TINY, TWIN

from mmcore.core.explain import explain, find_keys
from mmcore.core.lineage import find_dataset
from mmcore.sample import sha256_hex

STORY_KEYS = {
    "key", "dataset", "status", "decided_by", "source", "meta", "scores", "steps", "shard", "models",
    "increment", "earlier", "outlived", "tombstones", "forgotten",
}  # fmt: skip


def test_a_kept_sample_lies_at_the_offset_that_is_said_with_the_hash_that_is_said(
    mm: Mm, made: Made
) -> None:
    said = mm("explain", ORIGINAL, "--root", str(made.root), "--json")
    assert said.code == 0
    (story,) = said.json()["samples"]
    assert story.keys() == STORY_KEYS
    assert (story["status"], story["decided_by"]) == ("kept", None)
    assert story["outlived"] == [TWIN]
    assert story["increment"] == {"dataset": story["dataset"], "number": 1, "of": 1}
    assert story["source"]["licence"] == "cc0-1.0"
    assert story["source"]["original_key"] == "red/000"
    png = story["source"]["parts"]["png"]
    assert sha256_hex((made.corpus / png["path"]).read_bytes()) == png["sha256"]
    assert [step["step"] for step in story["steps"]] == [
        "ingest",
        "clean",
        "dedup",
        "split",
        "encode",
    ]
    shard = story["shard"]
    data = Path(shard["url"]).read_bytes()
    assert {part["extension"] for part in shard["parts"]} >= {"jpg", "txt", "json"} or shard[
        "parts"
    ]
    for part in shard["parts"]:
        stored = data[part["offset"] : part["offset"] + part["num_bytes"]]
        assert sha256_hex(stored) == part["sha256"]
        header = data[part["offset"] - 512 : part["offset"]]
        assert header.startswith(f"{ORIGINAL}.{part['extension']}".encode())


@pytest.mark.parametrize(
    ("key", "status", "step", "rule", "reason", "twin"),
    [
        (TINY, "dropped", "clean", "min_side", "image_too_small", ""),
        (BROKEN, "quarantined", "clean", "decode_image", None, ""),
        (TWIN, "dropped", "dedup", "exact_duplicates", "exact_duplicate", ORIGINAL),
    ],
)
def test_a_sample_that_was_not_kept_has_a_rule_a_reason_and_no_shard(
    mm: Mm, made: Made, key: str, status: str, step: str, rule: str, reason: str | None, twin: str
) -> None:
    (story,) = mm("explain", key, "--root", str(made.root), "--json").json()["samples"]
    decided = story["decided_by"]
    assert story["status"] == status
    assert (decided["step"], decided["rule"], decided["twin"]) == (step, rule, twin)
    assert decided["reason"] == (reason or decided["reason"])
    assert decided["reason"]
    assert story["shard"] is None
    words = mm("explain", key, "--root", str(made.root))
    assert words.out.startswith(f"{key}: {status}\n")
    assert decided["reason"] in words.out
    assert words.err.startswith("1 sample of tiny/")


def test_every_sample_that_was_found_can_be_explained_and_the_fates_add_up(made: Made) -> None:
    root = str(made.root)
    dataset = find_dataset(root, None)
    names = sorted(
        str(path.relative_to(made.corpus).with_suffix("")) for path in made.corpus.rglob("*.png")
    )
    stories = [
        explain(root, dataset, key) for name in names for key in find_keys(root, dataset, name)
    ]
    fates = [story["status"] for story in stories]
    assert len(fates) == NUM_FOUND
    assert (fates.count("dropped"), fates.count("quarantined")) == (2, 1)
    assert (
        fates.count("kept") == NUM_FOUND - 3 == sum(story["shard"] is not None for story in stories)
    )


def test_a_sample_is_found_by_the_name_that_the_corpus_gave_it(mm: Mm, made: Made) -> None:
    said = mm("explain", "Red/000", "--root", str(made.root), "--json").json()
    assert [story["key"] for story in said["samples"]] == [ORIGINAL]


def test_an_unknown_sample_or_dataset_exits_with_2_and_says_what_there_is(
    mm: Mm, made: Made
) -> None:
    said = mm("explain", "blue/00", "--root", str(made.root))
    assert (said.code, said.out) == (2, "")
    assert "no sample 'blue/00' among the 27" in said.err
    assert "Near: blue__001, blue__003" in said.err
    said = mm("explain", ORIGINAL, "--dataset", "other", "--root", str(made.root))
    assert said.code == 2
    assert "no dataset 'other'" in said.err
    assert "There are: tiny/" in said.err
