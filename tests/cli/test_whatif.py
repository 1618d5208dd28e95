"""`mm whatif`: what a run with other limits would say, without the run."""

from pathlib import Path

from command import Made, Mm
from corpus import NUM_FOUND, NUM_SOUND, TINY

from mmcore.core.rows import read_rows
from mmcore.core.runner import Run
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe

KEYS = {
    "schema", "recipe", "about", "changed", "elsewhere", "num_samples", "before", "after",
    "num_gained", "num_lost", "num_unknown", "unknown_because", "examples",
}  # fmt: skip


def files(directory: Path) -> dict[str, int]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): path.stat().st_mtime_ns for path in found}


def test_the_answer_is_what_a_run_says_and_nothing_is_written(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    setting = "clean.min_side.min_side=25"
    before = files(made.root)
    said = mm("whatif", made.recipe, "--set", setting, "--root", str(made.root), "--json")
    assert said.code == 0
    assert files(made.root) == before
    answer = said.json()
    assert answer.keys() == KEYS
    graph = load_recipe(made.recipe, overrides=[setting]).graph
    run = Run(graph, root=str(tmp_path), executor=LocalExecutor()).run(["clean"])
    counts = run["clean"].artifact.manifest.counts
    after = {"kept": counts.kept, **counts.dropped, **counts.quarantined}
    assert answer["after"] == {reason: num for reason, num in after.items() if num}
    assert answer["num_samples"] == NUM_FOUND
    fates = {row.sample.key: row.reason for row in read_rows(run["clean"].artifact)}
    for change in answer["examples"]["lost"]:
        assert fates[change["key"]] == change["after"]["reason"] == "image_too_small"
        assert change["after"]["detail"] == "24 px < 25 px"


def test_a_person_is_told_what_moves_where_and_why_some_is_unknown(mm: Mm, made: Made) -> None:
    said = mm("whatif", made.recipe, "--set", "clean.min_side.min_side=5", "--root", str(made.root))
    assert said.code == 0
    assert said.out.startswith("MinSide.min_side: 16 -> 5, of 27 samples of tiny/")
    assert f"  {TINY}  image_too_small (9 px < 16 px) -> unknown" in said.out
    assert "  1: image_too_small before repair_caption was asked" in said.out
    assert "nothing was decoded" in said.err


def test_what_changes_in_other_steps_is_named_and_not_asked(mm: Mm, made: Made) -> None:
    said = mm(
        "whatif", made.recipe, "--set", "clean.min_side.min_side=25",
        "--set", "encode.encode_image.side=16", "--examples", "1", "--root", str(made.root),
    )  # fmt: skip
    assert "also changed, and not asked: encode" in said.err
    assert f"lost {NUM_SOUND + 1}, for example" in said.out
    assert said.out.count("24 px < 25 px") == 1


def test_settings_that_change_nothing_name_those_that_would(mm: Mm, made: Made) -> None:
    said = mm("whatif", made.recipe, "--root", str(made.root))
    assert said.code == 2
    assert "clean.min_side.min_side" in said.err


def test_a_recipe_that_never_ran_says_what_to_run(mm: Mm, made: Made, tmp_path: Path) -> None:
    said = mm("whatif", made.recipe, "--set", "clean.image.min_side=25", "--root", str(tmp_path))
    assert said.code == 2
    assert "mm run RECIPE --until clean" in said.err
