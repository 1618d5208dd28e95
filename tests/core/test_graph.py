"""Graphs: what hangs on what, and plans that say why."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy import FirstOfEach, Shout, run_toy, toy_graph, write_corpus

from mmcore.core.corpus_work import CorpusWork
from mmcore.core.graph import Graph, load_memory, make_plan
from mmcore.core.source import Source
from mmcore.core.step import Step
from mmcore.errors import ConfigError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", num_texts=6)


def rule_step(name: str, *inputs: str) -> Step:
    return Step(name, CorpusWork(step=name, samples_from=inputs[0], rules=(FirstOfEach(),)), inputs)


def test_a_step_that_reads_what_no_earlier_step_makes_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"step 'b' reads \['c'\], which no earlier step makes.*'scan'"
    ):
        Graph("g", Source("x"), (rule_step("b", "c"), rule_step("c", "scan")))


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two steps are named 'a'"):
        Graph("g", Source("x"), (rule_step("a", "scan"), rule_step("a", "scan")))


def test_upstream_is_everything_a_step_depends_on_in_order() -> None:
    steps = (
        rule_step("a", "scan"),
        rule_step("b", "scan"),
        rule_step("c", "b", "a"),
        rule_step("d", "c"),
    )
    graph = Graph("g", Source("x"), steps)
    assert graph.upstream("d") == ["scan", "a", "b", "c"]
    assert graph.upstream("b") == ["scan"]
    assert graph.upstream("scan") == []


def test_a_step_that_is_not_there_is_refused_with_those_that_are(corpus: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"toy has no step 'clear'. Its steps are: scan, ingest, clean, dedup"
    ):
        make_plan(toy_graph(corpus), "root", ["clear"])


def test_the_order_of_inputs_changes_no_identity() -> None:
    fingerprints = {"a": "1", "b": "2"}
    one = replace(rule_step("c", "a", "b"))
    two = replace(one, inputs=("b", "a"))
    assert one.identity(fingerprints) == two.identity(fingerprints)
    assert one.identity(fingerprints) != one.identity({"a": "2", "b": "1"})


def test_a_plan_before_the_first_run_runs_everything(corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(toy_graph(corpus), str(tmp_path / "root"))
    assert [step.name for step in plan.to_run] == ["scan", "ingest", "clean", "dedup"]
    assert plan.steps[0].reason == "9 files not seen before"
    assert plan.estimated_seconds == 0
    assert not (tmp_path / "root").exists()


def test_a_plan_to_a_step_has_that_step_and_what_it_needs(corpus: Path, tmp_path: Path) -> None:
    plan = make_plan(toy_graph(corpus), str(tmp_path / "root"), ["clean"])
    assert [step.name for step in plan.steps] == ["scan", "ingest", "clean"]


def test_an_artifact_that_is_gone_is_made_again_and_the_plan_says_so(
    corpus: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    run = run_toy(toy_graph(corpus), root)
    (Path(run.artifacts["clean"].url) / "manifest.json").unlink()
    (planned,) = make_plan(toy_graph(corpus), str(root)).to_run
    assert (planned.name, planned.reason) == ("clean", "its artifact is gone or was never finished")
    assert (
        planned.estimated_seconds == load_memory(toy_graph(corpus), str(root))["clean"]["seconds"]
    )


def test_a_stage_that_takes_the_place_of_another_is_said_and_so_is_what_follows(
    corpus: Path, tmp_path: Path
) -> None:
    run_toy(toy_graph(corpus), tmp_path / "root")

    class Louder(Shout):
        """Another stage."""

    changed = toy_graph(corpus, stage=Louder())
    clean, dedup = make_plan(changed, str(tmp_path / "root")).to_run
    assert "Louder" in clean.reason
    assert "Shout" in clean.reason
    assert dedup.reason == "input changed: clean"


def test_losing_the_memory_of_steps_loses_no_result(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    run_toy(toy_graph(corpus), root)
    (root / "state" / "steps-toy.json").unlink()
    assert make_plan(toy_graph(corpus), str(root)).to_run == []
