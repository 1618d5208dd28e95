import pytest
import torch

from mmcore.train.config import TrainConfig
from mmcore.train.engines.optimizers import Lion, build_optimizer


def steps(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> torch.Tensor:
    for step in range(3):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(6, 5)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_fused_step_is_that_of_torch(name: str) -> None:
    config = TrainConfig(optimizer=name, learning_rate=0.01)  # type: ignore[arg-type]
    ours = model()
    optimizer = build_optimizer(ours, config)
    assert optimizer.defaults["fused"]
    plain = model()
    groups = [
        {"params": [plain.weight], "weight_decay": config.weight_decay},
        {"params": [plain.bias], "weight_decay": 0.0},
    ]
    kinds = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.01, betas=config.betas, foreach=False),
        "adam": lambda: torch.optim.Adam(groups, lr=0.01, betas=config.betas, foreach=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=0.01, momentum=config.betas[0], foreach=False),
    }
    torch.testing.assert_close(steps(optimizer, ours), steps(kinds[name](), plain))


def test_lion_steps_along_the_sign_of_its_momentum() -> None:
    config = TrainConfig(optimizer="lion", learning_rate=0.01, betas=(0.9, 0.98))
    ours, plain = model(), model()
    found = steps(build_optimizer(ours, config), ours)
    momenta = {name: torch.zeros_like(one) for name, one in plain.named_parameters()}
    for step in range(3):
        torch.manual_seed(step)
        plain.zero_grad()
        plain(torch.randn(4, 6)).square().sum().backward()
        with torch.no_grad():
            for name, one in plain.named_parameters():
                decay = config.weight_decay if one.ndim > 1 else 0.0
                direction = (0.9 * momenta[name] + 0.1 * one.grad).sign()
                one.copy_(one - 0.01 * (direction + decay * one))
                momenta[name] = 0.98 * momenta[name] + 0.02 * one.grad
    expected = torch.cat([one.detach().flatten() for one in plain.parameters()])
    torch.testing.assert_close(found, expected)


def test_a_weight_without_a_gradient_is_left_alone() -> None:
    layer = model()
    before = layer.weight.clone()
    optimizer = Lion([{"params": list(layer.parameters())}], lr=0.1)
    optimizer.step()
    assert torch.equal(layer.weight, before)
