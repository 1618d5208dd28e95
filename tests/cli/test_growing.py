"""`mm forget`, `mm diff`, `mm compact` and what `mm explain` and `mm datasets` say of them."""

import shutil
from pathlib import Path

import pytest
from command import Made, Mm
from corpus import NUM_SOUND, write_sample


@pytest.fixture
def root(made: Made, tmp_path: Path) -> str:
    """A dataset of its own, which a test may forget things of."""
    return str(shutil.copytree(made.root, tmp_path / "root"))


def test_a_dry_run_says_what_would_be_forgotten_and_forgets_nothing(mm: Mm, root: str) -> None:
    said = mm("forget", "red__004", "--why", "a letter", "--dry-run", "--root", root)
    assert said.code == 0
    assert "red__004" in said.out
    assert not Path(root, "forgotten").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["red__004", "nobody", "--why", "x"], "tiny never had a sample 'nobody'"),
        (["nobody", "--why", "x"], "knows nobody"),
        (["red__004", "--why", " "], "--why is empty"),
        (["red__004", "--why", "x", "--dataset", "cats"], "no dataset 'cats'"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_whole(
    mm: Mm, root: str, arguments: list[str], expected: str
) -> None:
    said = mm("forget", *arguments, "--root", root)
    assert said.code == 2
    assert expected in said.err
    assert not Path(root, "forgotten").exists()


def test_a_sample_of_two_datasets_asks_for_the_one_that_is_meant(mm: Mm, root: str) -> None:
    for kind in ("ds", "steps"):
        shutil.copytree(f"{root}/{kind}/tiny", f"{root}/{kind}/other")
    said = mm("forget", "red__004", "--why", "x", "--root", root)
    assert said.code == 2
    assert "--dataset other" in said.err
    said = mm("forget", "red__004", "--why", "x", "--dataset", "tiny", "--root", root)
    assert said.code == 0
    assert not Path(root, "forgotten/other").exists()


def test_datasets_say_how_many_dead_lie_in_their_shards(mm: Mm, root: str) -> None:
    mm("forget", "red__004", "red__006", "--why", "x", "--root", root)
    assert "2 dead in its shards" in mm("datasets", "--root", root).out
    (row,) = mm("datasets", "--root", root, "--json").json()["datasets"]
    assert row["num_forgotten"] == 2
    assert mm("verify", "--root", root).code == 0


def test_versions_are_compared_for_people_and_for_programs(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    corpus = shutil.copytree(made.corpus, tmp_path / "corpus")
    root = str(tmp_path / "root")
    run = ("run", made.recipe, "--set", f"source.path={corpus}", "--root", root, "--workers", "1")
    assert mm(*run).code == 0
    (first,) = mm("datasets", "--root", root, "--json").json()["datasets"]
    write_sample(corpus / "red" / "002", 999)
    write_sample(corpus / "red" / "300", 300)
    (corpus / "blue" / "003.png").unlink()
    assert mm(*run).code == 0
    told = mm("diff", first["dataset"][:9], "tiny", "--root", root, "--json").json()
    assert told["before"] == first["dataset"]
    assert (told["added"], told["changed"]) == (["red__300"], ["red__002"])
    assert told["removed"] == ["blue__003"]
    assert sum(told["by_split"]["after"].values()) == NUM_SOUND
    assert told["scores"]["audio_seconds"]["after"]["num"] == NUM_SOUND
    said = mm("diff", first["dataset"], "tiny", "--root", root)
    assert said.code == 0
    assert "added: red__300" in said.out
    assert "audio_seconds" in said.out
    assert "label" in said.out


def test_a_dataset_without_anything_dead_is_not_compacted(mm: Mm, root: str) -> None:
    said = mm("compact", "tiny", "--root", root)
    assert said.code == 4
    assert "nothing to compact" in said.err


def test_compaction_without_a_known_recipe_asks_for_it(mm: Mm, root: str) -> None:
    shutil.rmtree(f"{root}/runs")
    said = mm("compact", "tiny", "--root", root)
    assert said.code == 2
    assert "mm compact tiny --recipe FILE" in said.err
