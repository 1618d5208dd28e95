"""The contract: one commit, everything counted, same bytes, nothing done twice, killed anywhere."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import toy
from toy import FirstOfEach, Shout, hashes, run_toy, toy_graph, write_corpus

from mmcore.core.corpus_work import CorpusWork
from mmcore.core.manifest import Counts, load_manifest, verify_artifact
from mmcore.core.map_work import MapWork
from mmcore.core.rows import read_kept, read_rows
from mmcore.core.runner import Event, Run
from mmcore.core.stage import Stage, Worker
from mmcore.core.step import Step, TaskReport
from mmcore.errors import AccountingError, ConfigError, IntegrityError, StepError
from mmcore.executors.local import LocalExecutor
from mmcore.sample import Outcome, Sample


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_found_is_kept_plus_dropped_plus_quarantined_at_every_step(
    corpus: Path, tmp_path: Path
) -> None:
    run = run_toy(toy_graph(corpus), tmp_path / "root")
    counts = {name: artifact.manifest.counts for name, artifact in run.artifacts.items()}
    assert counts["ingest"] == Counts(23, 23)
    assert counts["clean"] == Counts(23, 21, {"text_too_short": 1}, {"text_broken": 1})
    assert counts["dedup"] == Counts(21, 20, {"duplicate": 1})


def test_every_sample_that_was_not_kept_has_a_row_with_its_reason(
    corpus: Path, tmp_path: Path
) -> None:
    run = run_toy(toy_graph(corpus), tmp_path / "root")
    rows = {row.sample.key: row for step in ("clean", "dedup") for row in read_rows(run.artifacts[step])
            if row.status != "kept"}  # fmt: skip
    assert rows["short"].detail == "2 < 3"
    assert rows["short"].rule == "shout"
    assert rows["short"].sample.scores == {"num_chars": 2.0}
    assert rows["broken"].status == "quarantined"
    assert rows["twin"].twin == "t000"


def test_a_second_run_runs_no_task_and_writes_nothing(corpus: Path, tmp_path: Path) -> None:
    run_toy(toy_graph(corpus), tmp_path / "root")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*")}
    events: list[Event] = []
    again = Run(
        toy_graph(corpus),
        root=str(tmp_path / "root"),
        executor=LocalExecutor(),
        listener=events.append,
    )
    assert again.plan().to_run == []
    again.run()
    assert {event.kind for event in events} == {"step_skipped"}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*")} == before


def test_the_same_input_gives_the_same_bytes_under_any_root_copy_and_worker_count(
    corpus: Path, tmp_path: Path
) -> None:
    run_toy(toy_graph(corpus), tmp_path / "one")
    copy = tmp_path / "elsewhere" / "copied"
    copy.mkdir(parents=True)
    names = sorted(path.name for path in corpus.iterdir())
    random.Random(1).shuffle(names)
    for name in names:
        shutil.copyfile(corpus / name, copy / name)
    executor = LocalExecutor(num_workers=2)
    Run(toy_graph(copy), root=str(tmp_path / "two"), executor=executor).run()
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(hashes(tmp_path / "one")) > 10


def test_the_hash_seed_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        root = tmp_path / seed
        program = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
            "from toy import run_toy, toy_graph\n"
            "run_toy(toy_graph(Path(sys.argv[2])), Path(sys.argv[3]))"
        )
        here = str(Path(toy.__file__).parent)
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", program, here, str(corpus), str(root)],
            check=True,
            env=environment,
        )
        found.append(hashes(root))
    assert found[0] == found[1]


def test_killed_in_the_middle_a_second_run_goes_on_and_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path
) -> None:
    run_toy(toy_graph(corpus), tmp_path / "whole")
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from toy import Shout, run_toy, toy_graph\n"
        "from mmcore.core.runner import Event\n"
        "def tell(event): print(event.kind, event.step, flush=True)\n"
        "run_toy(toy_graph(Path(sys.argv[2])), Path(sys.argv[3]), listener=tell)"
    )
    here = str(Path(toy.__file__).parent)
    command = [sys.executable, "-c", program, here, str(corpus), str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["task_finished", "clean"]:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list((tmp_path / "killed" / "steps" / "toy" / "clean").glob("*/manifest.json"))
    events: list[Event] = []
    run_toy(toy_graph(corpus), tmp_path / "killed", listener=events.append)
    resumed = {
        event.step: event.facts["num_resumed"] for event in events if event.kind == "step_started"
    }
    assert resumed["clean"] >= 1  # type: ignore[operator]
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


def test_what_a_dead_process_left_behind_is_swept_away(corpus: Path, tmp_path: Path) -> None:
    graph = toy_graph(corpus)
    run = run_toy(graph, tmp_path / "whole")
    url = run.artifacts["clean"].url.replace("whole", "again")
    program = "from mmcore import storage; print(storage.temporary_name())"
    name = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    Path(url).mkdir(parents=True)
    (Path(url) / name.stdout.strip()).write_bytes(b"half a shard")
    (Path(url) / "part-999999.parquet").write_bytes(b"from an older plan")
    run_toy(graph, tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(tmp_path / "whole")


def test_a_changed_setting_runs_only_what_depends_on_it_and_says_which(
    corpus: Path, tmp_path: Path
) -> None:
    run_toy(toy_graph(corpus), tmp_path / "root")
    changed = toy_graph(corpus, stage=Shout(min_chars=14))
    plan = Run(changed, root=str(tmp_path / "root"), executor=LocalExecutor()).plan()
    assert [step.name for step in plan.to_run] == ["clean", "dedup"]
    assert "Shout.min_chars: 3 -> 14" in plan.to_run[0].reason
    assert plan.to_run[1].reason == "input changed: clean"
    assert plan.to_run[0].estimated_seconds is not None


def test_a_changed_file_is_found_and_a_touched_one_changes_nothing(
    corpus: Path, tmp_path: Path
) -> None:
    run_toy(toy_graph(corpus), tmp_path / "root")
    os.utime(corpus / "t001.txt")
    run = Run(toy_graph(corpus), root=str(tmp_path / "root"), executor=LocalExecutor())
    assert "1 changed" in run.plan().steps[0].reason
    results = run.run()
    assert [name for name, result in results.items() if not result.was_cached] == ["scan"]
    (corpus / "t001.txt").write_text("another text")
    (corpus / "new.txt").write_text("a new text")
    plan = run.plan()
    assert "1 files new, 1 changed, 0 removed" in plan.steps[0].reason
    assert run.run()["dedup"].artifact.manifest.counts.found == 22


def test_a_missing_corpus_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file below .*nowhere"):
        run_toy(toy_graph(tmp_path / "nowhere"), tmp_path / "root")


def test_too_many_broken_samples_fail_the_step_and_commit_nothing(
    corpus: Path, tmp_path: Path
) -> None:
    graph = toy_graph(corpus)
    strict = tuple(replace(step, max_quarantined=0.01) for step in graph.steps)
    with pytest.raises(
        StepError, match=r"1 of 23 samples are broken .text_broken 1.*max_quarantined"
    ):
        run_toy(replace(graph, steps=strict), tmp_path / "root")
    assert not list((tmp_path / "root" / "steps" / "toy" / "clean").glob("*/manifest.json"))


@dataclass(frozen=True, kw_only=True)
class Rename(Stage):
    """A faulty stage."""

    def build(self) -> Worker:
        def rename(sample: Sample) -> Outcome:
            return Sample("another", sample.parts)

        return rename


class Forgetful(FirstOfEach):
    """A faulty rule."""

    def decide(self, corpus, shelf):  # type: ignore[no-untyped-def]
        verdict = super().decide(corpus, shelf)
        return replace(verdict, first=verdict.first[1:])


class Loses(MapWork):
    """Faulty work: a task forgets a sample."""

    def run(self, task, context):  # type: ignore[no-untyped-def]
        report = super().run(task, context)
        return TaskReport(report.files, replace(report.counts, kept=report.counts.kept - 1))


class LosesWhole(MapWork):
    """Faulty work: a task is given fewer samples than there are."""

    def tasks(self, inputs):  # type: ignore[no-untyped-def]
        return super().tasks(inputs)[1:]


@pytest.mark.parametrize(
    ("name", "work", "complaint"),
    [
        (
            "clean",
            MapWork(step="clean", samples_from="ingest", stages=(Rename(),)),
            "returned the sample",
        ),
        (
            "clean",
            Loses(step="clean", samples_from="ingest", stages=(Shout(),)),
            "are accounted for",
        ),
        (
            "clean",
            LosesWhole(step="clean", samples_from="ingest", stages=(Shout(),)),
            "23 samples and 19",
        ),
        (
            "dedup",
            CorpusWork(step="dedup", samples_from="clean", rules=(Forgetful(),)),
            "decided about 20",
        ),
    ],
)
def test_a_step_that_loses_a_sample_fails_closed(
    corpus: Path, tmp_path: Path, name: str, work: MapWork, complaint: str
) -> None:
    graph = toy_graph(corpus)
    steps = tuple(
        Step(name, work, step.inputs) if step.name == name else step for step in graph.steps
    )
    with pytest.raises(AccountingError, match=complaint):
        run_toy(replace(graph, steps=steps), tmp_path / "root")
    assert not list((tmp_path / "root" / "steps" / "toy" / name).glob("*/manifest.json"))


def test_a_flipped_byte_is_found_by_verify_and_refused_by_the_next_step(
    corpus: Path, tmp_path: Path
) -> None:
    run = run_toy(toy_graph(corpus), tmp_path / "root")
    clean = run.artifacts["clean"]
    victim = Path(clean.url) / "part-000001.parquet"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert verify_artifact(clean.url, clean.manifest) == [
        "part-000001.parquet: SHA-256 differs from the manifest"
    ]
    with pytest.raises(
        IntegrityError, match=r"part-000001\.parquet is not the file that was committed"
    ):
        list(read_kept(clean))


def test_a_source_file_that_changes_during_the_run_is_refused(corpus: Path, tmp_path: Path) -> None:
    run = Run(toy_graph(corpus), root=str(tmp_path / "root"), executor=LocalExecutor())
    plan = run.plan()
    run.run_step("scan", plan)
    run.run_step("ingest", plan)
    (corpus / "t003.txt").write_text("text number X")
    with pytest.raises(IntegrityError, match="The source changed after it was scanned"):
        run.run_step("clean", plan)


def test_a_manifest_holds_no_path_of_this_machine_and_no_clock(
    corpus: Path, tmp_path: Path
) -> None:
    run = run_toy(toy_graph(corpus), tmp_path / "root")
    for artifact in run.artifacts.values():
        text = (Path(artifact.url) / "manifest.json").read_text()
        assert str(tmp_path) not in text
        # limits of what a sample may cost are settings, in seconds
        assert "second" not in text.replace('"seconds": 20.0', "").replace('"seconds_per_mb"', "")
        assert load_manifest(artifact.url) == artifact.manifest
        assert json.loads(text)["format"] == "mm.manifest"
