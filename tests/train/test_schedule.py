from mmcore.train.schedule import learning_rate


def rates(num_steps: int, num_warmup_steps: int) -> list[float]:
    return [
        learning_rate(step, num_steps=num_steps, num_warmup_steps=num_warmup_steps, peak=2.0)
        for step in range(num_steps)
    ]


def test_the_rate_rises_in_a_line_to_its_peak() -> None:
    assert rates(20, 4)[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_the_rate_falls_in_half_a_cosine_and_stays_above_zero() -> None:
    found = rates(20, 4)
    assert found[12] == 1.0
    assert found[4:] == sorted(found[4:], reverse=True)
    assert 0 < found[-1] < 0.05


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates(10, 0)[0] == 2.0
