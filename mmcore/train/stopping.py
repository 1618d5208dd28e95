"""When training has nothing left to gain."""

from collections.abc import Mapping

from mmcore.errors import ConfigError
from mmcore.sample import Json
from mmcore.train.config import EarlyStopping


class Patience:
    """Counts the epochs in a row that brought nothing; its state is two numbers."""

    def __init__(self, config: EarlyStopping) -> None:
        self._config = config
        self._best: float | None = None
        self._num_without = 0

    def is_over(self, figures: Mapping[str, float]) -> bool:
        """Take in the figures of an epoch; return whether that was the last one to wait for."""
        if self._config.metric not in figures:
            raise ConfigError(
                f"train.early_stopping.metric={self._config.metric!r} is not measured. Use one of "
                f"{sorted(figures)}."
            )
        value = figures[self._config.metric]
        if self._is_better(value):
            self._best, self._num_without = value, 0
        else:
            self._num_without += 1
        return self._num_without >= self._config.patience

    def state(self) -> dict[str, Json]:
        """Return what a checkpoint keeps of it."""
        return {"best": self._best, "num_without": self._num_without}

    def load(self, state: Mapping[str, Json]) -> None:
        """Go on from a state."""
        best, num_without = state["best"], state["num_without"]
        assert isinstance(num_without, int), "what state() gave"
        self._best = float(best) if isinstance(best, int | float) else None
        self._num_without = num_without

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return value == value  # a figure that is not a number is no start
        if self._config.mode == "min":
            return value < self._best - self._config.min_delta
        return value > self._best + self._config.min_delta
