"""The learning rate as a function of the step: up in a line, down in half a cosine."""

from math import cos, pi


def learning_rate(step: int, *, num_steps: int, num_warmup_steps: int, peak: float) -> float:
    """Return the rate of a step counted from 0; the last step is just above 0.

    Linear warm-up, then a cosine without restarts (Loshchilov and Hutter, ICLR 2017).
    """
    if step < num_warmup_steps:
        return peak * (step + 1) / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return peak * 0.5 * (1 + cos(pi * min(1.0, progress)))
