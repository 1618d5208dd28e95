from collections.abc import Callable

import pytest
import torch
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from mmcore.train.config import TrainConfig
from mmcore.train.engines.optimizers import build_optimizer, steer
from mmcore.train.schedule import learning_rate, momentum


def rates(num_steps: int, num_warmup_steps: int, **fields: object) -> list[float]:
    config = TrainConfig(
        learning_rate=2.0,
        warmup_fraction=num_warmup_steps / num_steps,
        **fields,  # type: ignore[arg-type]
    )
    return [learning_rate(config, step, num_steps=num_steps) for step in range(num_steps)]


def test_the_rate_rises_in_a_line_to_its_peak() -> None:
    assert rates(20, 4)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_the_rate_falls_in_half_a_cosine_and_stays_above_zero() -> None:
    found = rates(20, 4)
    assert found[12] == 1.0
    assert found[4:] == sorted(found[4:], reverse=True)
    assert 0 < found[-1] < 0.05


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(10, 0)[0] == 2.0


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    assert rates(6, 2, schedule="constant") == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def test_the_rate_drops_at_each_given_fraction_of_the_run() -> None:
    found = rates(8, 0, schedule="step", drop_at=(0.25, 0.75), drop_factor=0.5)
    assert found == [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


def torchs(num_steps: int, make: Callable[[Optimizer], LRScheduler]) -> dict[str, list[float]]:
    """What a scheduler of torch says, step by step."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2.0, betas=(0.9, 0.98))
    reference = make(optimizer)
    found: dict[str, list[float]] = {"rates": [], "momenta": []}
    for _ in range(num_steps):
        group = optimizer.param_groups[0]
        found["rates"].append(group["lr"])
        found["momenta"].append(group["betas"][0])
        optimizer.step()
        if len(found["rates"]) < num_steps:
            reference.step()
    return found


def momenta(num_steps: int, num_warmup_steps: int, **fields: object) -> list[float]:
    config = TrainConfig(
        warmup_fraction=num_warmup_steps / num_steps,
        **fields,  # type: ignore[arg-type]
    )
    return [momentum(config, step, num_steps=num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("num_rising", [6, 4])
def test_one_cycle_is_that_of_torch_in_rate_and_momentum(num_rising: int) -> None:
    expected = torchs(
        20,
        lambda optimizer: schedulers.OneCycleLR(
            optimizer,
            max_lr=2.0,
            total_steps=20,
            pct_start=num_rising / 20,
            base_momentum=0.85,
            max_momentum=0.9,
        ),
    )
    assert rates(20, num_rising, schedule="one_cycle") == pytest.approx(expected["rates"])
    found = momenta(20, num_rising, schedule="one_cycle")
    assert found == pytest.approx(expected["momenta"])
    assert min(found) < 0.851
    assert found[-1] == pytest.approx(0.9)


def test_no_other_schedule_moves_the_momentum() -> None:
    assert set(momenta(20, 4, schedule="cosine", betas=(0.8, 0.9))) == {0.8}
    assert set(momenta(20, 4, schedule="one_cycle", betas=(0.8, 0.9))) == {0.8}  # lower already


def test_a_cosine_is_that_of_torch() -> None:
    expected = torchs(16, lambda one: schedulers.CosineAnnealingLR(one, T_max=16))
    assert rates(20, 4)[4:] == pytest.approx(expected["rates"])


def test_drops_are_those_of_torch() -> None:
    expected = torchs(20, lambda one: schedulers.MultiStepLR(one, milestones=[8, 15], gamma=0.5))
    found = rates(20, 0, schedule="step", drop_at=(0.4, 0.75), drop_factor=0.5)
    assert found == pytest.approx(expected["rates"])


def test_a_warm_up_is_that_of_torch() -> None:
    expected = torchs(
        6,
        lambda one: schedulers.LinearLR(one, start_factor=0.25, end_factor=1.0, total_iters=3),
    )
    assert rates(12, 4, schedule="constant")[:6] == pytest.approx(expected["rates"])


def test_the_optimizer_takes_the_momentum_where_it_has_it() -> None:
    for kind, name in (("adamw", "betas"), ("lion", "betas"), ("sgd", "momentum")):
        config = TrainConfig(optimizer=kind)  # type: ignore[arg-type]
        optimizer = build_optimizer(torch.nn.Linear(2, 2), config)
        steer(optimizer, learning_rate=0.5, momentum=0.7)
        for group in optimizer.param_groups:
            assert group["lr"] == 0.5
            assert group[name] == ((0.7, 0.98) if name == "betas" else 0.7)


def test_the_momentum_of_one_cycle_alone_is_part_of_what_decides_the_weights() -> None:
    assert "momentum_low" not in TrainConfig(momentum_low=0.5).identity()
    assert TrainConfig(schedule="one_cycle").identity()["momentum_low"] == 0.85
