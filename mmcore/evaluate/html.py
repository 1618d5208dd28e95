"""What reports have in common: how they are filled in, and how they look."""

import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_STYLE = Path(__file__).with_name("page.css")


def environment() -> Environment:
    """Return what fills in a page: all is escaped, and a name that is missing is an error."""
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    made.filters["count"] = lambda value: "-" if value is None else f"{value:,}"
    return made


def pretty(value: object) -> str:
    """Return a value as JSON for people."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


def base_style() -> Markup:
    """Return the style of all reports: colours for day and night, type, cards, tables."""
    return Markup(_STYLE.read_text(encoding="utf-8"))  # noqa: S704
