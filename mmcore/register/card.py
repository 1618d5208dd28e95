"""The model card: what a model is for, what it learned from, how good it is, where it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from mmcore.sample import Json

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


@dataclass(frozen=True)
class CardInputs:
    """Everything that a card says."""

    model_name: str
    intended_use: str
    limits: tuple[str, ...]
    dataset: Mapping[str, Json]
    """name, fingerprint, licence, num_samples by split, labels."""
    evaluation: Mapping[str, Any]
    """The facts of the evaluate step."""
    training: Mapping[str, Any]
    """The facts of the train step."""
    lineage: Mapping[str, str]
    """Fingerprint by step name."""


def model_card(card: CardInputs) -> str:
    """Return the card in Markdown, with the front matter that model hubs read."""
    # Markdown, not HTML: what reads it escapes it
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["line"] = lambda value: " ".join(str(value).split()).replace("|", "\\|")
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(card=card)
