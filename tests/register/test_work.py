import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.models import get_model_info

from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest
from mmcore.core.step import Artifact, Inputs, TaskContext
from mmcore.errors import ConfigError, IntegrityError
from mmcore.register.listing import describe
from mmcore.register.work import RegisterWork, flat_numbers
from mmcore.sample import Json, sha256_hex
from mmcore.telemetry.mlflow_store import tracking_uri
from mmcore.telemetry.model_registry import ModelRegistry

SIGNATURE = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [-1, 8, 8, 3]}],
    "outputs": [{"name": "logits.fused", "dtype": "float32", "shape": [-1, 3]}],
}
FACTS: Mapping[str, Json] = {
    "split": "test",
    "num_samples": 24,
    "accuracy": 0.75,
    "macro_f1": 0.7,
    "macro_recall": 0.71,
    "majority_accuracy": 0.36,
    "accuracy_by_modality": {"image": 0.7, "text": 0.65},
    "error_reduction": None,
    "retrieval": {
        "text_to_image": {
            "recall_at_1": 0.2,
            "recall_at_5": 0.5,
            "recall_at_10": 0.7,
            "chance_at_1": 0.01,
            "chance_at_5": 0.05,
            "chance_at_10": 0.1,
        }
    },
}


def commit(
    url: Path,
    step: str,
    fingerprint: str,
    files: Mapping[str, bytes],
    inputs: Mapping[str, str] | None = None,
    **facts: Json,
) -> Artifact:
    url.mkdir(parents=True)
    for name, data in files.items():
        (url / name).write_bytes(data)
    records = tuple(FileRecord(n, len(data), sha256_hex(data)) for n, data in files.items())
    work: Json = {"work": step, "name": "squares", "licence": "cc0-1.0"}
    identity: dict[str, Json] = {"step": step, "work": work, "inputs": dict(inputs or {})}
    manifest = Manifest(step, fingerprint, identity, Counts(), records, facts)
    return Artifact(str(url), commit_manifest(str(url), manifest))


@pytest.fixture
def context_of(root: str) -> Callable[..., TaskContext]:
    """Artifacts of a model that was trained to a given accuracy, and where to register it."""

    def make(model: str, accuracy: float, dataset: str = "d") -> TaskContext:
        at = Path(root, "steps", model)
        artifacts = {
            "train": commit(
                at / "train",
                "train",
                model * 64,
                {
                    "model.safetensors": model.encode(),
                    "model.json": b"{}",
                    "timing.jsonl": b"1",
                    "events.out.tfevents.mm": b"2",
                },
                num_params=1234,
            ),
            "evaluate": commit(
                at / "evaluate",
                "evaluate",
                f"e{model}" * 32,
                {"signature.json": json.dumps(SIGNATURE).encode()},
                {"shard": dataset * 64},
                **{**FACTS, "accuracy": accuracy},
            ),
            "shard": commit(
                at / "shard",
                "shard",
                dataset * 64,
                {},
                num_samples={"test": 24, "train": 70},
                labels={"animals": 50, "food": 44},
            ),
        }
        return TaskContext(
            inputs=Inputs(artifacts, {name: artifact.url for name, artifact in artifacts.items()}),
            output_url=str(at / "register"),
            root=root,
            fingerprint=f"r{model}" * 32,
        )

    return make


def register(context: TaskContext, **settings: Any) -> Mapping[str, Any]:
    work = RegisterWork(model_name="squares", **settings)
    report = work.run(work.tasks(context.inputs)[0], context)
    return work.finish([report], context).facts


def test_first_model_becomes_champion_and_challenger(root: str, context_of: Any) -> None:
    context = context_of("a", 0.75)
    facts = register(context)
    assert facts["decision"] == "promoted"
    assert facts["champion_before"] is None
    assert ModelRegistry(root).aliases("squares") == {"challenger": 1, "champion": 1}
    written = json.loads(Path(context.output_url, "registration.json").read_text())
    assert written == facts


def test_worse_model_becomes_challenger_alone(root: str, context_of: Any) -> None:
    register(context_of("a", 0.75))
    facts = register(context_of("b", 0.70))
    assert facts["decision"] == "kept_champion"
    assert facts["why"].startswith("accuracy 0.7000 against 0.7500 of version 1: -0.0500")
    assert ModelRegistry(root).aliases("squares") == {"challenger": 2, "champion": 1}


def test_better_model_takes_the_champions_place(root: str, context_of: Any) -> None:
    register(context_of("a", 0.75))
    facts = register(context_of("b", 0.80, dataset="f"))
    assert (facts["champion_before"], facts["champion_after"]) == (1, 2)
    assert facts["why"].endswith("measured on different test sets")
    assert ModelRegistry(root).aliases("squares") == {"challenger": 2, "champion": 2}


def test_margin_keeps_a_champion_that_is_beaten_by_less(root: str, context_of: Any) -> None:
    register(context_of("a", 0.75))
    assert register(context_of("b", 0.80), min_improvement=0.1)["decision"] == "kept_champion"


def test_nested_metric_can_decide(root: str, context_of: Any) -> None:
    facts = register(context_of("a", 0.75), metric="retrieval.text_to_image.recall_at_10")
    assert facts["value"] == 0.7


def test_registering_again_gives_the_same_facts_and_one_version(root: str, context_of: Any) -> None:
    register(context_of("a", 0.75))
    context = context_of("b", 0.80)
    first = register(context)
    assert register(context) == first
    assert [version.version for version in ModelRegistry(root).versions("squares")] == [1, 2]


@pytest.mark.parametrize("killed_before", ["challenger", "champion"])
def test_attempt_killed_between_version_and_alias_is_completed_by_the_next(
    root: str, context_of: Any, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    register(context_of("a", 0.75))
    context = context_of("b", 0.80)
    set_alias = ModelRegistry.set_alias

    def dies(self: ModelRegistry, name: str, alias: str, version: int) -> None:
        if alias == killed_before:
            raise KeyboardInterrupt
        set_alias(self, name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(ModelRegistry, "set_alias", dies)
        with pytest.raises(KeyboardInterrupt):
            register(context)
    assert ModelRegistry(root).aliases("squares")["champion"] == 1
    facts = register(context)
    assert facts["decision"] == "promoted"
    assert (facts["champion_before"], facts["champion_after"]) == (1, 2)
    assert ModelRegistry(root).aliases("squares") == {"challenger": 2, "champion": 2}


def test_old_model_that_is_registered_again_does_not_take_back_its_place(
    root: str, context_of: Any
) -> None:
    old = context_of("a", 0.75)
    register(old)
    register(context_of("b", 0.80))
    register(context_of("c", 0.85))
    facts = register(old)
    assert facts["decision"] == "kept_champion"
    assert ModelRegistry(root).aliases("squares") == {"challenger": 3, "champion": 3}


def test_card_says_data_licence_figures_and_lineage(root: str, context_of: Any) -> None:
    context = context_of("a", 0.75)
    register(context, limits=("Only squares.",), intended_use="To sort squares.")
    card = Path(context.output_url, "model_card.md").read_text()
    for expected in (
        'license: "cc0-1.0"',
        "To sort squares.",
        "24 test, 70 train samples",
        "| accuracy | 75.0% |",
        "| accuracy of image alone | 70.0% |",
        "| text to image | 20.0% | 50.0% | 70.0% | 10.0% |",
        "- Only squares.",
        f"| train | `{'a' * 64}` |",
        "animals (50), food (44)",
    ):
        assert expected in card
    assert "\n\n\n" not in card


def test_version_carries_weights_card_signature_and_data(
    root: str, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(context_of("a", 0.75))
    (version,) = ModelRegistry(root).versions("squares")
    assert version.run_key == "a" * 64
    assert version.description.startswith("---\nlicense")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    assert get_model_info("models:/squares/1").signature.inputs.input_names() == ["image"]
    files = {file.name for file in Path(root, "mlartifacts").rglob("*") if file.is_file()}
    assert files == {"MLmodel", "README.md", "model.json", "model.safetensors"}


def test_listing_shows_the_newest_first_with_aliases_figures_and_data(
    root: str, context_of: Any
) -> None:
    register(context_of("a", 0.75))
    register(context_of("b", 0.70))
    newest, oldest = describe(root, "squares")
    assert (newest.version, newest.aliases) == (2, ("challenger",))
    assert (oldest.version, oldest.aliases) == (1, ("champion",))
    assert oldest.metrics["accuracy"] == 0.75
    assert oldest.metrics["retrieval.text_to_image.recall_at_10"] == 0.7
    assert oldest.dataset_fingerprint == "d" * 64
    assert oldest.dataset == f"squares/{'d' * 16}"
    assert describe(root) == [newest, oldest]


def test_weights_that_changed_after_training_are_refused(root: str, context_of: Any) -> None:
    context = context_of("a", 0.75)
    Path(context.inputs["train"].url, "model.safetensors").write_bytes(b"x")
    with pytest.raises(IntegrityError, match="not the file that training committed"):
        register(context)
    assert ModelRegistry(root).versions("squares") == []


def test_metric_that_was_not_measured_is_refused_with_those_that_were(
    root: str, context_of: Any
) -> None:
    with pytest.raises(ConfigError, match=r"'acuracy' is not among .* accuracy, "):
        register(context_of("a", 0.75), metric="acuracy")
    assert ModelRegistry(root).versions("squares") == []


def test_name_that_the_registry_cannot_hold_is_refused() -> None:
    for name in ("", "a/b", "it's"):
        with pytest.raises(ConfigError, match="model_name"):
            RegisterWork(model_name=name)
    with pytest.raises(ConfigError, match="min_improvement"):
        RegisterWork(model_name="m", min_improvement=float("nan"))


def test_only_numbers_among_facts_are_metrics() -> None:
    facts = {"b": 1, "a": {"y": 0.5, "x": None}, "c": "word", "d": True, "e": float("inf")}
    assert list(flat_numbers(facts)) == [("a.y", 0.5), ("b", 1.0)]
