"""How a page is rendered: Jinja2 with everything escaped, and words for numbers and times.

return render(request, "runs.html", section="runs", title="Runs", runs=runs)
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

TEMPLATES = Path(__file__).with_name("templates")
THEMES = ("auto", "light", "dark")
_END_OF_TIME = Markup("</time>")
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def render(
    request: Request,
    template: str,
    /,
    *,
    status_code: int = 200,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Return a page. Pages that extend base.html give `section` (of the navigation) and `title`."""
    return HTMLResponse(render_text(request, template, **values), status_code, headers)


def render_text(request: Request, template: str, /, **values: Any) -> str:
    """Return the HTML of a template, for pages and for the fragments that are sent live."""
    state = request.scope.get("state", {})
    theme = request.cookies.get("mm_theme", "auto")
    return (
        environment()
        .get_template(template)
        .render(
            request=request,
            csrf_token=state.get("csrf_token", ""),
            is_logged_in=bool(state.get("session") or state.get("is_bearer")),
            theme=theme if theme in THEMES else "auto",
            static=request.app.state.static.url,
            **values,
        )
    )


def macro(template: str, name: str) -> Callable[..., Markup]:
    """Return a macro of a template, for pieces of pages that are rendered once and kept."""
    found: Callable[..., Markup] = getattr(environment().get_template(template).module, name)
    return found


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the one environment: autoescape always on, an undefined name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters |= {
        "number": number,
        "decimal": decimal,
        "percent": percent,
        "size": size,
        "duration": duration,
        "moment": moment,
        "ago": ago,
        "words": words,
        "badge": badge,
        "when": when,
    }
    return made


def number(value: float | None) -> str:
    """Return a count with thin groups of three: 1 234 567."""
    if value is None:
        return "-"
    return f"{value:,.0f}".replace(",", "\u202f")


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a metric with a fixed number of digits."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share of one in percent."""
    return "-" if value is None else f"{100 * value:.{digits}f}%"


def size(num_bytes: float | None) -> str:
    """Return a number of bytes with three digits and a decimal unit."""
    if num_bytes is None:
        return "-"
    value = float(num_bytes)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes all")


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units: 1 h 04 min, 12 s."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def parse_time(text: str | None) -> datetime | None:
    """Return a time written in ISO 8601, UTC where it names no zone; None for anything else."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def moment(text: str | None) -> str:
    """Return the time in full, with its zone: 2026-11-22 04:35:10 UTC."""
    at = parse_time(text)
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(text: str | None) -> str:
    """Return how long ago, or in how long: 3 min ago, in 2 h."""
    return _ago(parse_time(text))


def _ago(at: datetime | None) -> str:
    if at is None:
        return "-"
    seconds = (datetime.now(UTC) - at).total_seconds()
    amount = _roughly(abs(seconds))
    if amount == "now":
        return "just now"
    return f"{amount} ago" if seconds > 0 else f"in {amount}"


def _roughly(seconds: float) -> str:
    if seconds < 5:
        return "now"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


@lru_cache(maxsize=200)
def badge(state: str, label: str = "") -> Markup:
    """Return a state as a word with a mark. In rows of lists: a call of a macro costs more."""
    return Markup('<span class="badge is-{}">{}</span>').format(state, label or words(state))


def when(text: str | None) -> Markup:
    """Return a time, relative, with the absolute one in its title; app.js keeps it current."""
    if not text:
        return Markup('<span class="muted">-</span>')
    at, start = _start_of_time(text)
    return start + _ago(at) + _END_OF_TIME


@lru_cache(maxsize=4096)
def _start_of_time(text: str) -> tuple[datetime | None, Markup]:
    start = Markup('<time datetime="{}" title="{}">').format(text, moment(text))
    return parse_time(text), start


def words(name: str) -> str:
    """Return a name in snake case as words: image_too_small becomes image too small."""
    return name.replace("_", " ")
