from dataclasses import replace

import pytest
import torch
from tiny_models import LABELS, TINY_MODEL, random_batch, tiny_model

from mmcore.models.heads import ProductOfExperts, fitted_weights
from mmcore.models.multimodal import MultimodalModel

MODALITIES = ("image", "text", "audio")


def without(batch: dict[str, torch.Tensor], name: str, rows: list[int]) -> dict[str, torch.Tensor]:
    """The batch with some rows of a modality gone."""
    has = batch[f"has_{name}"].clone()
    has[rows] = False
    changed = {**batch, f"has_{name}": has}
    for array in [array for array in batch if array.startswith(name)]:
        changed[array] = batch[array].clone()
        changed[array][rows] = 0
    return changed


def test_each_modality_gives_a_unit_vector_and_logits_and_one_more_for_all() -> None:
    output = tiny_model().eval()(random_batch())
    assert set(output.embeddings) == set(MODALITIES)
    assert set(output.logits) == {*MODALITIES, "fused"}
    for embedding in output.embeddings.values():
        assert embedding.shape == (6, TINY_MODEL.embedding_dim)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
    assert all(logits.shape == (6, len(LABELS)) for logits in output.logits.values())


@pytest.mark.parametrize("name", MODALITIES)
def test_a_missing_modality_is_zeros_and_changes_no_other_row(name: str) -> None:
    model, batch = tiny_model().eval(), random_batch()
    whole, partial = model(batch), model(without(batch, name, [1, 4]))
    assert not partial.embeddings[name][[1, 4]].any()
    assert not partial.logits[name][[1, 4]].any()
    rest = [0, 2, 3, 5]
    for key, logits in partial.logits.items():
        torch.testing.assert_close(logits[rest], whole.logits[key][rest])
    assert not torch.allclose(partial.logits["fused"][[1, 4]], whole.logits["fused"][[1, 4]])


@pytest.mark.parametrize("name", MODALITIES)
def test_a_batch_without_a_modality_is_finite_and_trains_the_others(name: str) -> None:
    model = tiny_model()
    output = model(without(random_batch(), name, list(range(6))))
    output.logits["fused"].logsumexp(dim=1).sum().backward()
    assert all(logits.isfinite().all() for logits in output.logits.values())
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_zeros_of_missing_pictures_do_not_move_batch_statistics() -> None:
    batch = random_batch()
    partial, fewer = tiny_model(), tiny_model()
    partial(without(batch, "image", [4, 5]))
    fewer({name: array[:4] for name, array in batch.items()})
    for name, buffer in partial.named_buffers():
        torch.testing.assert_close(buffer, dict(fewer.named_buffers())[name], msg=name)


def test_a_model_of_fewer_modalities_ignores_the_others() -> None:
    config = replace(TINY_MODEL, audio=None)
    output = tiny_model(config).eval()(random_batch())
    assert set(output.logits) == {"image", "text", "fused"}


def test_all_experts_together_are_surer_than_each() -> None:
    logits = {"image": torch.tensor([[2.0, 0.0]]), "text": torch.tensor([[1.0, 0.0]])}
    present = {"image": torch.ones(1), "text": torch.ones(1)}
    fused = ProductOfExperts(("image", "text"))(logits, present).softmax(dim=1)
    torch.testing.assert_close(fused[0, 0], torch.sigmoid(torch.tensor(3.0)))


def test_an_absent_expert_has_no_say() -> None:
    logits = {"image": torch.tensor([[2.0, 0.0]]), "text": torch.tensor([[-9.0, 0.0]])}
    present = {"image": torch.ones(1), "text": torch.zeros(1)}
    fused = ProductOfExperts(("image", "text"))(logits, present).softmax(dim=1)
    torch.testing.assert_close(fused, logits["image"].softmax(dim=1))


def test_every_weight_gets_a_gradient() -> None:
    model: MultimodalModel = tiny_model()
    output = model(random_batch())
    total = sum(e.sum() for e in output.embeddings.values()) + output.logits["fused"][:, 0].sum()
    total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_weights_fitted_to_held_out_samples_trust_the_better_expert() -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (60,))
    right = 4.0 * torch.nn.functional.one_hot(labels, 3).float()
    logits = {"image": right + torch.randn(60, 3), "text": 3.0 * torch.randn(60, 3)}
    present = {name: torch.ones(60) for name in logits}
    fusion = ProductOfExperts(("image", "text"))
    before = torch.nn.functional.cross_entropy(fusion(logits, present), labels)
    fusion.weights = fitted_weights(fusion, logits, present, labels)
    image, text = fusion.weights.tolist()
    assert image > 0.5 > 0.2 > text > 0
    assert torch.nn.functional.cross_entropy(fusion(logits, present), labels) < 0.5 * before
    assert torch.equal(fusion.weights, fitted_weights(fusion, logits, present, labels))
