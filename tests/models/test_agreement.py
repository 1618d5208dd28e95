"""How well parts fit each other: a score on every pair, a drop only below a limit."""

import numpy as np
from pairs import SAMPLES, asked, vectors

from mmcore.models.agreement import AudioTextAgreement, ImageTextAgreement
from mmcore.models.embed import EmbedAudio, EmbedImage, EmbedText
from mmcore.sample import Dropped, Sample

Hub = dict[str, str]


def test_the_score_is_the_cosine_of_the_embeddings_of_a_clip(hub: Hub) -> None:
    stage = ImageTextAgreement(model=hub["clip"], side=32, max_tokens=16, batch_size=2)
    found = asked(stage)
    assert all(isinstance(one, Sample) for one in found)
    scores = [one.scores["image_text_agreement"] for one in found]  # type: ignore[union-attr]
    image = vectors(EmbedImage(model=hub["clip"], side=32, dtype="float32"))
    text = vectors(EmbedText(model=hub["clip"], max_tokens=16, dtype="float32"))
    np.testing.assert_allclose(scores, (image * text).sum(axis=1), atol=1e-4)
    assert len(set(scores)) == len(scores)
    assert [list(one.parts) for one in found] == [list(one.parts) for one in SAMPLES]  # type: ignore[union-attr]


def test_a_model_of_ours_scores_sound_and_text(ours: str) -> None:
    found = asked(AudioTextAgreement(model=ours))
    audio = vectors(EmbedAudio(model=ours, dtype="float32"))
    text = vectors(EmbedText(model=ours, dtype="float32"))
    scores = [one.scores["audio_text_agreement"] for one in found]  # type: ignore[union-attr]
    np.testing.assert_allclose(scores, (audio * text).sum(axis=1), atol=1e-4)


def test_a_pair_below_the_limit_is_dropped_with_its_score(ours: str) -> None:
    scored = asked(ImageTextAgreement(model=ours))
    scores = [one.scores["image_text_agreement"] for one in scored]  # type: ignore[union-attr]
    limit = sorted(scores)[2]
    decided = asked(ImageTextAgreement(model=ours, min_agreement=limit))
    for score, one in zip(scores, decided, strict=True):
        if score >= limit:
            assert isinstance(one, Sample)
            assert one.scores == {"image_text_agreement": score}
        else:
            assert isinstance(one, Dropped)
            assert (one.reason, one.detail) == (
                "image_text_disagree", f"{score:.4f} < {limit:g}"
            )  # fmt: skip
            assert one.sample.scores == {"image_text_agreement": score}
            assert list(one.sample.parts) == ["png", "wav", "txt"]


def test_a_sample_without_one_of_the_two_is_not_judged(ours: str) -> None:
    lone = Sample("lone", {"txt": SAMPLES[0].parts["txt"]})
    found = asked(ImageTextAgreement(model=ours, min_agreement=2.0), [lone, SAMPLES[1]])
    assert found[0] == lone
    assert isinstance(found[1], Dropped)
    assert asked(ImageTextAgreement(model=ours), [lone]) == [lone]
