"""Two runs of one recipe at once: one commit of each step, the same bytes, and both succeed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus import write_corpus, write_recipe
from toy import hashes

from mmcore.core.runner import Event, Run
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe

Start = Any
Undisturbed = Any


def test_two_runs_at_once_both_succeed_with_the_same_bytes(
    undisturbed: Undisturbed, start: Start, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    drivers = [start(undisturbed.corpus, root, "local", 1) for _ in range(2)]
    for driver in drivers:
        assert driver.finish() == 0
    assert hashes(root) == undisturbed.hashes


def test_a_run_that_is_overtaken_before_it_can_finish_takes_what_the_other_committed(
    tmp_path: Path,
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    graph = load_recipe(str(write_recipe(tmp_path / "tiny.yaml", corpus))).graph
    Run(graph, root=str(tmp_path / "alone"), executor=LocalExecutor()).run()
    root = str(tmp_path / "root")
    overtaken = overtake(lambda: Run(graph, root=root, executor=LocalExecutor()).run())
    results = Run(graph, root=root, executor=LocalExecutor(), listener=overtaken).run()
    assert results["shard"].artifact.manifest.facts["num_shards"]
    assert hashes(tmp_path / "root") == hashes(tmp_path / "alone")


def overtake(other: Callable[[], object]) -> Callable[[Event], None]:
    """Listen, and when the last shard is written let another run commit the step first."""

    def hear(event: Event) -> None:
        if (event.kind, event.step) == ("task_finished", "shard") and event.facts[
            "done"
        ] == event.facts["total"]:
            other()

    return hear
