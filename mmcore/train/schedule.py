"""The learning rate as a function of the step: up first, then as the schedule says."""

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


def _one_cycle(step: int, num_steps: int, rising: float) -> float:
    top = rising * num_steps - 1
    if step <= top:
        return _between(_ONE_CYCLE_START, 1.0, step / top if top > 0 else 1.0)
    progress = (step - top) / max(1e-9, num_steps - 1 - top)
    return _between(1.0, _ONE_CYCLE_START * _ONE_CYCLE_END, min(1.0, progress))


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + cos(pi * progress))
