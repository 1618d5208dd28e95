"""The learning rate, and the momentum that goes with it, as functions of the step."""

from math import cos, pi

from mmcore.train.config import TrainConfig

_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4  # of the start


def learning_rate(config: TrainConfig, step: int, *, num_steps: int) -> float:
    """Return the rate of a step counted from 0.

    Linear warm-up, then a cosine without restarts that ends just above 0 (Loshchilov and Hutter,
    ICLR 2017), drops, or no change. `one_cycle` goes up and down in half cosines (Smith and Topin,
    2018).
    """
    num_warmup_steps = round(config.warmup_fraction * num_steps)
    if config.schedule == "one_cycle":
        return config.learning_rate * _one_cycle(step, num_steps, config.warmup_fraction)
    if step < num_warmup_steps:
        return config.learning_rate * (step + 1) / num_warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "step":
        num_drops = sum(step >= round(at * num_steps) for at in config.drop_at)
        return config.learning_rate * config.drop_factor**num_drops
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + cos(pi * min(1.0, progress)))


def momentum(config: TrainConfig, step: int, *, num_steps: int) -> float:
    """Return the momentum of a step, or the first beta: with `one_cycle` low where the rate is high
    (Smith, 2018, arXiv 1803.09820).
    """
    high = config.betas[0]
    if config.schedule != "one_cycle":
        return high
    low = min(high, config.momentum_low)
    return _up_and_down(step, num_steps, config.warmup_fraction, (high, low, high))


def _one_cycle(step: int, num_steps: int, rising: float) -> float:
    ends = (_ONE_CYCLE_START, 1.0, _ONE_CYCLE_START * _ONE_CYCLE_END)
    return _up_and_down(step, num_steps, rising, ends)


def _up_and_down(
    step: int, num_steps: int, rising: float, ends: tuple[float, float, float]
) -> float:
    """Return the value on the half cosines from the first end to the second and to the third."""
    first, middle, last = ends
    top = rising * num_steps - 1
    if step <= top:
        return _between(first, middle, step / top if top > 0 else 1.0)
    progress = (step - top) / max(1e-9, num_steps - 1 - top)
    return _between(middle, last, min(1.0, progress))


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + cos(pi * progress))
