import pytest
import torch
from tiny_models import TINY_MODEL

from mmcore.errors import ConfigError
from mmcore.models.config import DataShape
from mmcore.models.multimodal import MultimodalModel
from mmcore.models.saved import SavedModel
from mmcore.models.warm import start_from


def model_of(*labels: str, seed: int, vocab_size: int = 20) -> MultimodalModel:
    torch.manual_seed(seed)
    return MultimodalModel(TINY_MODEL, DataShape(labels=labels, vocab_size=vocab_size, num_mels=8))


def saved(model: MultimodalModel) -> SavedModel:
    return SavedModel(model, model.config, model.shape.labels, {})


def test_every_weight_but_the_fusions_is_that_of_the_earlier_model() -> None:
    old, new = model_of("a", "b", seed=1), model_of("a", "b", seed=2)
    start_from(new, saved(old))
    before = old.state_dict()
    for name, tensor in new.state_dict().items():
        if not name.startswith("fusion."):
            assert torch.equal(tensor, before[name]), name


def test_classes_are_matched_by_name_and_a_new_one_keeps_fresh_weights() -> None:
    old, new = model_of("a", "c", seed=1), model_of("a", "b", "c", seed=2)
    fresh = new.heads["image"].classify.weight.detach().clone()
    start_from(new, saved(old))
    weight, before = new.heads["image"].classify.weight, old.heads["image"].classify.weight
    assert torch.equal(weight[0], before[0])
    assert torch.equal(weight[1], fresh[1])
    assert torch.equal(weight[2], before[1])


def test_a_model_that_is_built_differently_is_refused_with_what_to_do() -> None:
    old = saved(model_of("a", "b", seed=1))
    with pytest.raises(ConfigError, match="start: scratch"):
        start_from(model_of("a", "b", seed=2, vocab_size=30), old)
    with pytest.raises(ConfigError, match="no class in common"):
        start_from(model_of("x", "y", seed=2), old)
