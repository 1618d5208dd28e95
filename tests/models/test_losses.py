import math

import torch
from tiny_models import random_batch, tiny_model
from torch.nn import functional

from mmcore.models.config import LossConfig
from mmcore.models.losses import (
    classification_loss,
    contrastive_loss,
    label_counts,
    training_loss,
)
from mmcore.models.multimodal import ModelOutput


def unit(rows: list[list[float]]) -> torch.Tensor:
    return functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def all_pairs(number: int) -> torch.Tensor:
    return torch.ones(number, dtype=torch.bool)


def test_pairs_that_agree_cost_less_than_pairs_that_do_not() -> None:
    first, groups = unit([[1, 0], [0, 1]]), torch.arange(2)
    agreeing = contrastive_loss(first, first, groups, all_pairs(2), temperature=0.1)
    crossed = contrastive_loss(first, first.flip(0), groups, all_pairs(2), temperature=0.1)
    # two candidates whose cosines are 1 and 0: log(1 + exp(-10)) and that plus 10
    assert math.isclose(float(agreeing), math.log1p(math.exp(-10)), rel_tol=1e-2)
    assert math.isclose(float(crossed), 10 + math.log1p(math.exp(-10)), rel_tol=1e-4)


def test_distinct_pairs_cost_what_plain_infonce_costs() -> None:
    torch.manual_seed(0)
    first, second = (functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    similarity = first @ second.T / 0.2
    targets = torch.arange(5)
    expected = functional.cross_entropy(similarity, targets) / 2
    expected = expected + functional.cross_entropy(similarity.T, targets) / 2
    found = contrastive_loss(first, second, targets, all_pairs(5), temperature=0.2)
    torch.testing.assert_close(found, expected)


def test_samples_of_one_group_are_positives_for_each_other() -> None:
    # the second picture lies nearer to the caption of the first than to its own
    image = unit([[1, 0, 0], [1, 0.1, 0], [0, 0, 1]])
    text = unit([[1, 0.1, 0], [1, 0, 0], [0, 0, 1]])
    same_group = torch.tensor([0, 0, 1])
    found = contrastive_loss(image, text, same_group, all_pairs(3), temperature=0.1)
    swapped = contrastive_loss(image, text[[1, 0, 2]], same_group, all_pairs(3), temperature=0.1)
    torch.testing.assert_close(found, swapped)
    alone = contrastive_loss(image, text, torch.arange(3), all_pairs(3), temperature=0.1)
    alone_swapped = contrastive_loss(
        image, text[[1, 0, 2]], torch.arange(3), all_pairs(3), temperature=0.1
    )
    assert alone > alone_swapped


def test_rows_that_lack_a_modality_count_neither_as_pairs_nor_as_negatives() -> None:
    torch.manual_seed(0)
    first, second = (functional.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    has = torch.tensor([True, True, False, True])
    found = contrastive_loss(first, second, torch.arange(4), has, temperature=0.1)
    expected = contrastive_loss(
        first[has], second[has], torch.arange(4)[has], all_pairs(3), temperature=0.1
    )
    torch.testing.assert_close(found, expected)


def test_no_pair_at_all_costs_nothing_and_has_a_finite_gradient() -> None:
    first = unit([[1, 0], [0, 1]]).requires_grad_()
    loss = contrastive_loss(
        first, first, torch.arange(2), torch.zeros(2, dtype=torch.bool), temperature=0.1
    )
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_rows_without_a_label_add_nothing_to_the_class_loss() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    known = classification_loss(logits[:2], torch.tensor([0, 0]), label_smoothing=0.0)
    found = classification_loss(logits, torch.tensor([0, 0, -1]), label_smoothing=0.0)
    torch.testing.assert_close(found, known)
    nobody = classification_loss(logits, torch.tensor([-1, -1, -1]), label_smoothing=0.1)
    assert float(nobody) == 0.0


def test_the_total_is_the_weighted_sum_of_the_named_parts() -> None:
    output, batch = tiny_model().eval()(random_batch()), random_batch()
    parts = training_loss(output, batch, LossConfig(contrastive_weight=0.7))
    classes = [value for name, value in parts.items() if name.startswith("class_")]
    pairs = [value for name, value in parts.items() if name.startswith("contrastive_")]
    assert (len(classes), len(pairs)) == (3, 3)
    torch.testing.assert_close(parts["loss"], sum(classes) + 0.7 * sum(pairs) / 3)


def test_a_missing_modality_is_not_judged_by_its_class() -> None:
    output, batch = tiny_model().eval()(random_batch()), random_batch()
    has = torch.tensor([True, False, True, True, False, True])
    found = training_loss(output, {**batch, "has_image": has}, LossConfig())["class_image"]
    rest = classification_loss(
        output.logits["image"][has], batch["label"][has], label_smoothing=LossConfig.label_smoothing
    )
    torch.testing.assert_close(found, rest)


def test_the_mean_gradient_over_ranks_is_that_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    leaves = {name: torch.randn(6, 4, requires_grad=True) for name in ("image", "text")}
    batch = random_batch()
    config = LossConfig()

    def loss_of(rows: slice, *, num_ranks: int) -> torch.Tensor:
        """What a rank that holds some of the rows computes."""
        embeddings = {name: functional.normalize(x, dim=1) for name, x in leaves.items()}
        logits = {name: x[rows, :3] for name, x in leaves.items()}
        own = {name: array[rows] for name, array in batch.items()}
        output = ModelOutput({name: e[rows] for name, e in embeddings.items()}, logits)

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            if num_ranks == 1:
                return tensor
            candidates = [
                *embeddings.values(),
                batch["group"],
                *(batch[f"has_{n}"] for n in leaves),
            ]
            whole = next(c for c in candidates if torch.equal(c[rows], tensor))
            joined = whole.detach().clone()
            return torch.cat([joined[: rows.start], tensor, joined[rows.stop :]])

        counts = label_counts(batch, list(leaves))
        return training_loss(
            output, own, config, gather=gather, num_ranks=num_ranks, counts=counts
        )["loss"]

    loss_of(slice(0, 6), num_ranks=1).backward()
    expected = {name: leaf.grad.clone() for name, leaf in leaves.items()}
    for leaf in leaves.values():
        leaf.grad = None
    halves = [loss_of(slice(0, 3), num_ranks=2), loss_of(slice(3, 6), num_ranks=2)]
    (sum(halves) / 2).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, expected[name])
