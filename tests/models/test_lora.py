import pytest
import torch
from tiny_models import random_batch, tiny_model

from mmcore.errors import ConfigError
from mmcore.models.lora import add_lora, freeze, merged_weights

TARGETS = ("encoders.text.*query", "encoders.text.*value")


def test_a_model_with_lora_says_the_same_before_it_has_learnt() -> None:
    batch = random_batch()
    plain = tiny_model().eval()(batch).logits["fused"]
    model = tiny_model()
    add_lora(model, TARGETS, rank=2, alpha=4.0, seed=0)
    assert torch.equal(model.eval()(batch).logits["fused"], plain)


def test_what_was_learnt_is_added_to_the_matrices_under_their_old_names() -> None:
    batch = random_batch()
    model = tiny_model()
    add_lora(model, TARGETS, rank=2, alpha=4.0, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_up" in name:
            torch.nn.init.normal_(parameter)
    expected = model.eval()(batch).logits["fused"]
    merged = merged_weights(model, model.state_dict())
    plain = tiny_model(seed=5).eval()
    plain.load_state_dict(merged)
    torch.testing.assert_close(plain(batch).logits["fused"], expected)


def test_only_the_thin_matrices_of_a_target_are_trained() -> None:
    model = tiny_model()
    freeze(model, ["encoders.*"])
    add_lora(model, TARGETS, rank=2, alpha=4.0, seed=0)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    inside = {name for name in trained if name.startswith("encoders.")}
    assert {name.rsplit(".", 1)[1] for name in inside} == {"lora_up", "lora_down"}
    assert len(inside) == 4
    assert any(name.startswith("heads.") for name in trained)


def test_the_seed_decides_the_first_matrices() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.rand(3)  # whatever was drawn before
        model = tiny_model()
        add_lora(model, TARGETS, rank=2, alpha=4.0, seed=seed)
        found.append(next(p for n, p in model.named_parameters() if n.endswith("lora_down")))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_patterns_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no weight fits 'encoder.text.\*'. The model has enc"):
        freeze(tiny_model(), ["encoder.text.*"])
    with pytest.raises(ConfigError, match=r"no linear layer fits 'heads.none'. The model has"):
        add_lora(tiny_model(), ["heads.none"], rank=2, alpha=4.0, seed=0)
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(tiny_model(), ["*"])
