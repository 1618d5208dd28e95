from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmcore.core.executor import Executor
from mmcore.core.graph import Graph
from mmcore.core.rows import Row
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.step import Artifact, Step
from mmcore.errors import IntegrityError
from mmcore.ingest.answers import KnownAnswers
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.stamps import StampsLayout
from mmcore.ingest.work import IngestWork

Ingest = Callable[..., tuple[Artifact, list[Row]]]
FRENCH = StampsLayout(languages=("fr", "lt"))


@pytest.fixture
def few_stamps(tmp_path: Path) -> Path:
    contents = {
        "animals/owl.txt": "An owl.\nfr.utf8=Un hibou.\n",
        "animals/owl.png": "png",
        "animals/owl_desc_fr.ogg": "ogg",
        "animals/owl_desc_lt.ogg": "ogg",
        "animals/owl.dat": "dat",
        "animals/owl_mirror.png": "gnp",
        "food/pea.txt": "",
        "food/pea.png": "png",
    }
    for name, text in contents.items():
        path = tmp_path / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "few"


def test_every_sample_is_counted(few_stamps: Path, ingest: Ingest) -> None:
    artifact, rows = ingest(few_stamps, FRENCH)
    assert [(row.sample.key, row.status, row.reason) for row in rows] == [
        ("animals__owl__fr", "kept", ""),
        ("animals__owl_mirror__en", "dropped", "mirror_variant"),
        ("food__pea__en", "quarantined", "caption_missing"),
    ]
    counts = artifact.manifest.counts
    assert (counts.found, counts.kept) == (3, 1)
    assert counts.dropped == {"mirror_variant": 1}
    assert counts.quarantined == {"caption_missing": 1}


def test_files_of_no_sample_are_listed_with_reasons(few_stamps: Path, ingest: Ingest) -> None:
    artifact, _ = ingest(few_stamps, FRENCH)
    assert artifact.manifest.facts == {
        "num_files": 8,
        "unclaimed": {"drawing_hints": 1, "speech_without_caption": 1},
    }
    table = pq.read_table(Path(artifact.url) / "unclaimed.parquet")
    assert table.to_pylist() == [
        {"path": "animals/owl.dat", "reason": "drawing_hints"},
        {"path": "animals/owl_desc_lt.ogg", "reason": "speech_without_caption"},
    ]


def test_a_caption_made_here_lies_in_the_artifact(few_stamps: Path, ingest: Ingest) -> None:
    artifact, rows = ingest(few_stamps, FRENCH)
    ref = rows[0].sample.parts["txt"].ref
    assert ref is not None
    assert ref.base == "ingest"
    blob = (Path(artifact.url) / ref.path).read_bytes()
    assert blob[ref.offset : ref.offset + ref.num_bytes] == b"Un hibou."


def test_the_same_corpus_gives_the_same_bytes(few_stamps: Path, ingest: Ingest) -> None:
    one, _ = ingest(few_stamps, FRENCH, root="one")
    two, _ = ingest(few_stamps, FRENCH, root="two")
    assert one.manifest.files == two.manifest.files
    assert one.manifest.fingerprint == two.manifest.fingerprint


def test_tasks_hold_as_many_groups_as_asked(few_stamps: Path, ingest: Ingest) -> None:
    artifact, rows = ingest(few_stamps, FRENCH, samples_per_task=1)
    names = [file.path for file in artifact.manifest.files if file.num_samples is not None]
    assert names == ["part-000000.parquet", "part-000001.parquet"]
    assert len(rows) == 3


def test_another_layout_is_another_step() -> None:
    english = IngestWork(layout=StampsLayout(languages=("en",)))
    assert english.identity() != IngestWork(layout=FRENCH).identity()


def test_a_sidecar_that_changes_during_the_run_ends_it(
    few_stamps: Path, tmp_path: Path, executor: Executor
) -> None:
    work = IngestWork(layout=FRENCH)
    step = Step("ingest", work, inputs=("scan",), max_quarantined=1.0)
    run = Run(
        Graph("tiny", Source(str(few_stamps)), (step,)), root=str(tmp_path), executor=executor
    )
    plan = run.plan()
    run.run_step("scan", plan)
    (few_stamps / "animals/owl.txt").write_text("An eagle owl.\n")
    with pytest.raises(IntegrityError, match="run again"):
        run.run_step("ingest", plan)


def test_a_corpus_without_samples_gives_an_empty_artifact(tmp_path: Path, ingest: Ingest) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README").write_text("nothing here")
    artifact, rows = ingest(tmp_path / "empty", FolderLayout())
    assert not rows
    assert artifact.manifest.counts.found == 0
    assert artifact.manifest.facts["unclaimed"] == {"no_extension": 1}


def test_a_made_corpus_is_ingested_whole(made: tuple[Path, KnownAnswers], ingest: Ingest) -> None:
    folder, answers = made
    artifact, rows = ingest(folder, FolderLayout(label_from="folder"), samples_per_task=64)
    num_taken = len(answers.planted["key_taken"])
    assert artifact.manifest.counts.found == 200
    assert artifact.manifest.counts.quarantined == {"key_taken": num_taken}
    losers = [row.sample.meta["original_key"] for row in rows if row.reason == "key_taken"]
    assert losers == [answer.original_key for answer in answers.planted["key_taken"]]
    assert len({row.sample.key for row in rows}) == 200
    meta: list[Any] = [row.sample.meta for row in rows if row.status == "kept"]
    assert {one["licence"] for one in meta} == {"CC0-1.0"}
    assert len(Counter(one["label"] for one in meta)) == 7
