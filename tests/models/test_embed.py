"""Embeddings by models over samples: unit vectors, whatever comes along in a batch."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_rule import decided
from pairs import SAMPLES, TEXTS, asked, vectors
from toy import hashes, toy_graph

from mmcore.core.executor import Resources
from mmcore.core.map_work import MapWork
from mmcore.core.rows import load_part, read_kept
from mmcore.core.runner import Run
from mmcore.dedup.near import NearDuplicates
from mmcore.errors import ConfigError, SampleError
from mmcore.executors.local import LocalExecutor
from mmcore.media.array import array_of
from mmcore.media.near.prints import vector_of, without_prints
from mmcore.models.embed import EmbedAudio, EmbedImage, EmbedText, ModelStage
from mmcore.sample import Dropped, Part, Sample

Hub = dict[str, str]
FIELD = "print_image_embedding"

STAGES = {
    "picture by a CLIP": (lambda hub: EmbedImage(model=hub["clip"], side=32), 8),
    "picture by a ResNet": (lambda hub: EmbedImage(model=hub["resnet"], side=32), 8),
    "text by a CLIP": (lambda hub: EmbedText(model=hub["clip"], max_tokens=16), 8),
    "text by a BERT": (lambda hub: EmbedText(model=hub["bert"], max_tokens=16), 16),
    "sound by a wav2vec": (lambda hub: EmbedAudio(model=hub["wav2vec"], max_seconds=0.5), 16),
}


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, hub: Hub) -> ModelStage:
    made: ModelStage = STAGES[request.param][0](hub)
    return made


def test_an_embedding_is_a_unit_vector_of_its_own(stage: ModelStage) -> None:
    found = vectors(replace(stage, dtype="float32"))  # type: ignore[call-arg]
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4
    assert vectors(stage).dtype == np.float16


def test_what_comes_along_in_a_batch_changes_nothing(stage: ModelStage) -> None:
    exact = replace(stage, dtype="float32")  # type: ignore[call-arg]
    together = vectors(replace(exact, batch_size=4))
    alone = vectors(replace(exact, batch_size=1))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    # and in batches of one size not a bit
    backwards = vectors(replace(exact, batch_size=4), SAMPLES[::-1])[::-1]
    assert (vectors(replace(exact, batch_size=4))[1] == backwards[1]).all()


def test_the_input_stays_and_what_was_prepared_goes(hub: Hub) -> None:
    (found,) = asked(EmbedImage(model=hub["clip"], side=32), SAMPLES[:1])
    assert isinstance(found, Sample)
    assert list(found.parts) == ["png", "wav", "txt", "image_embedding.npy"]
    assert found.parts["png"] == SAMPLES[0].parts["png"]


def test_an_embedding_that_is_kept_as_a_print_tells_near_duplicates(hub: Hub) -> None:
    stage = EmbedImage(model=hub["clip"], side=32, keep="print")
    found = asked(stage, [SAMPLES[0], SAMPLES[1], replace(SAMPLES[0], key="z")])
    samples = [one for one in found if isinstance(one, Sample)]
    assert [one.parts for one in samples[:2]] == [one.parts for one in SAMPLES[:2]]
    assert [without_prints(one.meta) for one in samples[:2]] == [one.meta for one in SAMPLES[:2]]
    kept = vectors(replace(stage, keep="part"), SAMPLES[:1])[0]
    assert (vector_of(samples[0], FIELD) == kept).all()
    rule = NearDuplicates(max_distance={}, min_similarity={f"meta:{FIELD}": 0.99999})
    gone = [one for one in decided(rule, samples) if isinstance(one, Dropped)]
    assert [(one.sample.key, one.twin) for one in gone] == [("z", "s0")]


def test_a_sample_without_the_modality_is_left_alone_among_others(hub: Hub) -> None:
    lone = Sample("lone", {"wav": SAMPLES[0].parts["wav"]})
    found = asked(EmbedText(model=hub["bert"], max_tokens=16), [SAMPLES[0], lone, SAMPLES[1]])
    assert found[1] == lone
    assert [one.key for one in found] == ["s0", "lone", "s1"]  # type: ignore[union-attr]
    assert asked(EmbedText(model=hub["bert"]), [lone]) == [lone]


def test_the_vector_of_a_text_is_the_mean_over_its_tokens_and_not_over_padding(hub: Hub) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoModel

    ids = Tokenizer.from_file(f"{hub['bert']}/tokenizer.json").encode(TEXTS[0]).ids
    model = AutoModel.from_pretrained(hub["bert"]).eval()
    with torch.inference_mode():
        mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
    found = vectors(EmbedText(model=hub["bert"], dtype="float32"), SAMPLES[:1])[0]
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


def test_colours_are_centred_as_the_model_says_unless_the_recipe_does(
    hub: Hub, tmp_path: Path
) -> None:
    directory = tmp_path / "resnet"
    shutil.copytree(hub["resnet"], directory)
    stage = EmbedImage(model=str(directory), side=32, dtype="float32")
    plain, before = vectors(stage), stage.identity()
    said = '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]}'
    (directory / "preprocessor_config.json").write_text(said)
    assert stage.identity() != before
    centred = vectors(stage)
    assert np.abs(centred - plain).max() > 1e-5
    given = replace(stage, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))
    assert (vectors(replace(given, model=hub["resnet"])) == centred).all()


@pytest.mark.parametrize("kind", [EmbedImage, EmbedText, EmbedAudio])
def test_a_model_of_ours_sees_what_it_saw_in_training(ours: str, kind: type[ModelStage]) -> None:
    found = vectors(kind(model=ours, dtype="float32"))  # type: ignore[call-arg]
    assert found.shape == (5, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    alone = vectors(kind(model=ours, dtype="float32", batch_size=1))  # type: ignore[call-arg]
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_picture_that_is_broken_is_quarantined_before_the_model_sees_it(hub: Hub) -> None:
    broken = Sample("x", {"png": Part(data=b"\x89PNG\r\n\x1a\n")})
    with pytest.raises(SampleError):
        EmbedImage(model=hub["clip"], side=32).build()(broken)


def test_where_a_model_lies_is_no_part_of_the_identity_and_what_it_holds_is(
    hub: Hub, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(hub["bert"], copy)
    assert EmbedText(model=str(copy)).identity() == EmbedText(model=hub["bert"]).identity()
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert EmbedText(model=str(copy)).identity() != EmbedText(model=hub["bert"]).identity()


def test_a_name_on_the_hub_needs_its_commit() -> None:
    with pytest.raises(ConfigError, match=r"no directory here.*the commit as revision"):
        EmbedText(model="openai/clip-vit-base-patch32").identity()
    commit = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
    stage = EmbedText(model="openai/clip-vit-base-patch32", revision=commit)
    assert stage.identity()["model"] == {"model": stage.model, "revision": commit}


def test_a_model_for_something_else_is_refused(hub: Hub, ours: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes pixel_values, not input_ids"):
        asked(EmbedText(model=hub["resnet"]))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"lacks tokenizer.json"):
        EmbedText(model=str(tmp_path)).build()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        EmbedText(model=str(tmp_path)).build_batch()
    with pytest.raises(ConfigError, match="batch_size=0"):
        EmbedText(model=hub["bert"], batch_size=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_at_once(hub: Hub) -> None:
    stage = EmbedText(model=hub["bert"], device="cuda", num_cpus=2)
    assert stage.resources == Resources(num_cpus=2, num_gpus=1)
    work = MapWork(step="encode", samples_from="split", stages=(stage, EmbedText(model="x")))
    assert work.resources == Resources(num_cpus=2, num_gpus=1)
    with pytest.raises(ConfigError, match=r"torch sees no GPU here. Set device: cpu"):
        stage.build_batch()


def test_a_step_with_a_model_gives_the_same_bytes_with_any_number_of_workers(
    hub: Hub, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(9):
        (corpus / f"t{number}.txt").write_text(TEXTS[number % 3] * (1 + number))
    (corpus / "t4.txt").write_bytes(b"\xff\xfe broken")
    stage = EmbedText(model=hub["bert"], batch_size=2)
    for workers in (1, 2):
        graph = toy_graph(corpus, stage=stage, samples_per_task=5)
        root = str(tmp_path / str(workers))
        run = Run(graph, root=root, executor=LocalExecutor(num_workers=workers))
        run.run(["clean"])
    made = run.artifacts["clean"]
    assert made.manifest.counts.quarantined == {"text_undecodable": 1}
    bases = {"clean": made.url, "source": str(corpus)}
    kept = {one.key: one.parts for one in read_kept(made)}
    found = {
        key: array_of(load_part(parts["text_embedding.npy"], bases)) for key, parts in kept.items()
    }
    assert len({array.tobytes() for array in found.values()}) == 8
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")


def test_a_plan_with_a_model_needs_no_torch(hub: Hub) -> None:
    program = (
        "import sys\n"
        "from mmcore.models.agreement import ImageTextAgreement\n"
        "stage = ImageTextAgreement(model=sys.argv[1])\n"
        "stage.identity(); stage.build()\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, hub["clip"]], check=True)
