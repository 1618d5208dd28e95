import pytest
import torch

from mmcore.train.config import TrainConfig
from mmcore.train.schedule import learning_rate


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


def test_one_cycle_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=2.0, total_steps=20, pct_start=0.3, cycle_momentum=False
    )
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step() if len(expected) < 20 else None
    assert rates(20, 6, schedule="one_cycle") == pytest.approx(expected, rel=1e-9)
