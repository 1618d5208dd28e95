import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from mmcore.core.manifest import Manifest
from mmcore.core.rows import rows_files
from mmcore.core.step import Artifact, Task
from mmcore.errors import ConfigError, StepError
from mmcore.evaluate.work import EvaluateWork
from mmcore.models.config import DataShape, ModelConfig
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import save_model

NUM_MELS = 4
STEPS = ("shard", "tokenizer", "train")


@pytest.fixture
def evaluated(project, squares, make_model, make_loader):
    """One group of twelve is wrong in every head."""
    work = EvaluateWork(loader=make_loader(squares), num_resamples=50, batch_size=5)
    report = work.evaluate(make_model(wrong=[4]), squares.labels, project.context(*STEPS))
    return project.root / "evaluate", work, report


def test_facts_hold_the_headline_figures(evaluated) -> None:
    _, work, report = evaluated
    facts = work.finish([report], None).facts
    assert facts["accuracy"] == pytest.approx(11 / 12, abs=1e-6)
    assert facts["accuracy_by_modality"]["audio"] == pytest.approx(11 / 12, abs=1e-6)
    assert facts["majority_accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert facts["retrieval"]["audio_to_image"] == {
        "recall_at_1": 1.0,
        "recall_at_5": 1.0,
        "recall_at_10": 1.0,
        "chance_at_1": pytest.approx(1 / 12, abs=1e-6),
        "chance_at_5": pytest.approx(5 / 12, abs=1e-6),
        "chance_at_10": pytest.approx(10 / 12, abs=1e-6),
    }
    assert len(json.dumps(facts)) < 2048


def test_every_sample_has_one_row_in_the_order_of_the_shards(evaluated, squares) -> None:
    directory, _, report = evaluated
    table = pq.read_table(directory / "predictions.parquet")
    assert table["key"].to_pylist() == [info.key for info in squares.samples("test")]
    wrong = [row for row in table.to_pylist() if row["label"] != row["predicted"]]
    assert [row["key"] for row in wrong] == ["test-04-en", "test-04-fr"]
    assert (report.counts.found, report.counts.kept) == (24, 24)


def test_predictions_are_not_taken_for_a_table_of_outcomes(evaluated) -> None:
    directory, _, report = evaluated
    manifest = Manifest("evaluate", "f", {}, report.counts, tuple(report.files))
    assert rows_files(Artifact(str(directory), manifest)) == []


def test_same_evaluation_gives_the_same_bytes(
    evaluated, project, squares, make_model, make_loader
) -> None:
    _, work, report = evaluated
    again = work.evaluate(make_model(wrong=[4]), squares.labels, project.context(*STEPS))
    assert again.files == report.files


def test_absent_modality_is_not_counted_as_an_answer(
    project, make_squares, make_model, make_loader
) -> None:
    dataset = make_squares(without_audio=frozenset({0, 1, 2}))
    work = EvaluateWork(loader=make_loader(dataset), num_resamples=20)
    work.evaluate(make_model(wrong=[1]), dataset.labels, project.context(*STEPS))
    metrics = json.loads((project.root / "evaluate" / "metrics.json").read_text())
    assert metrics["heads"]["audio"]["num_samples"] == 18
    assert metrics["heads"]["audio"]["accuracy"]["value"] == 1.0
    table = pq.read_table(project.root / "evaluate" / "predictions.parquet").to_pylist()
    assert [row["predicted_audio"] for row in table if row["key"] == "test-01-en"] == [""]


def test_blind_modality_finds_nothing(project, squares, make_model, make_loader) -> None:
    work = EvaluateWork(loader=make_loader(squares), num_resamples=20)
    report = work.evaluate(make_model(blind=["audio"]), squares.labels, project.context(*STEPS))
    facts = report.facts
    assert facts["retrieval"]["audio_to_image"]["recall_at_1"] == pytest.approx(1 / 12, abs=1e-6)
    assert facts["retrieval"]["text_to_image"]["recall_at_1"] == 1.0
    assert facts["accuracy_by_modality"]["audio"] == pytest.approx(1 / 3, abs=1e-6)


def test_model_without_an_encoder_for_sound_has_no_figures_for_sound(
    project, squares, make_model, make_loader
) -> None:
    work = EvaluateWork(loader=make_loader(squares), num_resamples=20)
    report = work.evaluate(make_model(lacks=["audio"]), squares.labels, project.context(*STEPS))
    assert sorted(report.facts["accuracy_by_modality"]) == ["image", "text"]
    assert sorted(report.facts["retrieval"]) == ["image_to_text", "text_to_image"]
    table = pq.read_table(project.root / "evaluate" / "predictions.parquet")
    assert set(table["predicted_audio"].to_pylist()) == {""}


def test_recipe_can_make_it_and_an_unknown_setting_is_refused(squares, make_loader) -> None:
    adapter = TypeAdapter(EvaluateWork)
    loader = make_loader(squares)
    made = adapter.validate_python({"loader": loader, "num_examples": 2})
    assert (made.loader, made.num_examples) == (loader, 2)
    assert "num_examples" in adapter.json_schema()["properties"]
    with pytest.raises(ValidationError, match="num_exampels"):
        adapter.validate_python({"loader": loader, "num_exampels": 2})


def test_work_reads_the_model_that_training_saved(project, squares, make_loader) -> None:
    shape = DataShape(
        labels=tuple(squares.labels), vocab_size=squares.vocab_size, num_mels=NUM_MELS
    )
    torch.manual_seed(0)
    model = MultimodalModel(ModelConfig(), shape)
    save_model(project.artifacts["train"].url, model, preprocessing={})
    work = EvaluateWork(loader=make_loader(squares), num_resamples=10)
    report = work.run(work.tasks(None)[0], project.context(*STEPS))
    assert report.counts.kept == 24
    assert 0 <= report.facts["accuracy"] <= 1


def test_signature_leaves_batch_and_length_open(evaluated) -> None:
    directory, _, _ = evaluated
    signature = json.loads((directory / "signature.json").read_text())
    shapes = {spec["name"]: (spec["dtype"], spec["shape"]) for spec in signature["inputs"]}
    assert shapes["image"] == ("uint8", [-1, 8, 8, 3])
    assert shapes["audio_mel"] == ("float32", [-1, -1, 4])
    assert shapes["text_ids"] == ("int64", [-1, -1])
    assert "label" not in shapes
    assert {"name": "logits.fused", "dtype": "float32", "shape": [-1, 3]} in signature["outputs"]


def test_model_of_other_classes_is_refused(project, squares, make_model, make_loader) -> None:
    work = EvaluateWork(loader=make_loader(squares))
    with pytest.raises(StepError, match="the model was trained on"):
        work.evaluate(make_model(), ["cat", "dog"], project.context(*STEPS))


def test_split_without_samples_is_refused(project, squares, make_model, make_loader) -> None:
    work = EvaluateWork(loader=make_loader(squares), split="nowhere")
    with pytest.raises(StepError, match="'nowhere' has no samples"):
        work.evaluate(make_model(), squares.labels, project.context(*STEPS))


def test_settings_that_decide_the_result_are_in_the_identity(squares, make_loader) -> None:
    plain = EvaluateWork(loader=make_loader(squares))
    assert plain.identity() == EvaluateWork(loader=make_loader(squares)).identity()
    assert plain.identity() != EvaluateWork(loader=make_loader(squares), seed=1).identity()
    assert plain.tasks(None) == [Task("evaluate")]
    with pytest.raises(ConfigError, match="num_resamples"):
        EvaluateWork(loader=make_loader(squares), num_resamples=0)


def test_report_shows_pictures_and_plays_sound_and_names_no_address(evaluated) -> None:
    directory, _, _ = evaluated
    html = (directory / "report.html").read_text()
    assert 'src="data:image/jpeg;base64,' in html
    assert 'src="data:audio/flac;base64,' in html
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", html)
    assert "http:" not in html
    assert "https:" not in html
    assert "default-src 'none'" in html


def test_report_tells_the_funnel_with_reasons(evaluated) -> None:
    directory, _, _ = evaluated
    html = (directory / "report.html").read_text()
    assert "dropped: image_too_small 7" in html
    assert "quarantined: image_undecodable 2" in html
    assert "squares" in html
    assert "cc0-1.0" in html


def test_caption_cannot_become_markup(project, make_squares, make_model, make_loader) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    dataset = make_squares(caption_of=lambda group, language: hostile)
    work = EvaluateWork(loader=make_loader(dataset), num_resamples=5)
    work.evaluate(make_model(wrong=[2]), dataset.labels, project.context(*STEPS))
    html = (project.root / "evaluate" / "report.html").read_text()
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_most_confident_mistakes_show_each_caption_once(evaluated) -> None:
    directory, _, _ = evaluated
    html = (directory / "report.html").read_text()
    mistakes = html[html.index('id="mistakes"') : html.index('id="training"')]
    assert mistakes.count('class="mistake"') == 1
    assert "test-04-en" in mistakes


def test_model_that_is_always_right_has_a_report_without_mistakes(
    project, squares, make_model, make_loader
) -> None:
    work = EvaluateWork(loader=make_loader(squares), num_resamples=5)
    work.evaluate(make_model(), squares.labels, project.context(*STEPS))
    assert "every sample was right" in Path(project.root, "evaluate", "report.html").read_text()
