"""Early stopping: how long training has gone on without getting better."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mmcore.errors import ConfigError
from mmcore.sample import Json
from mmcore.train.config import EarlyStopping


@dataclass
class Patience:
    """What early stopping remembers from one validation to the next."""

    best: float | None = None
    num_without: int = 0
    """Validations in a row that brought nothing better."""

    def look(self, figures: Mapping[str, float], config: EarlyStopping | None) -> bool:
        """Take a validation in; return whether training is to end."""
        if config is None:
            return False
        if config.metric not in figures:
            raise ConfigError(
                f"train.early_stopping.metric={config.metric!r} is no figure of the validation. "
                f"Use one of {', '.join(sorted(figures))}."
            )
        value = figures[config.metric]
        sign = 1.0 if config.mode == "max" else -1.0
        if self.best is None or sign * (value - self.best) > config.min_delta:
            self.best, self.num_without = value, 0
        else:
            self.num_without += 1
        return self.num_without >= config.patience

    def to_json(self) -> dict[str, Json]:
        """Return it as JSON."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, float]) -> "Patience":
        """Read what `to_json` gave."""
        return Patience(**value)  # type: ignore[arg-type]
