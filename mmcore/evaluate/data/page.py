"""The page: counts, drawings and galleries as one HTML file that needs nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.core.lineage import DatasetVersion
from mmcore.evaluate.data.compare import Drift, ScoreDrift
from mmcore.evaluate.data.contents import FIELDS, Contents
from mmcore.evaluate.data.drawing import Histogram, overlaid, stacked
from mmcore.evaluate.data.examples import Galleries
from mmcore.evaluate.data.limits import Limit
from mmcore.evaluate.data.losses import Loss, Losses
from mmcore.evaluate.data.sketch import Sketch, union
from mmcore.evaluate.data.words import reason_words, score_words
from mmcore.evaluate.html import base_style, environment, pretty
from mmcore.sample import Json

_TEMPLATE = Path(__file__).with_name("page.html.j2")
SPLITS = ("train", "val", "test")
MAX_LABELS = 30
_MAX_LABEL_CHARS = 100
MAX_REASONS = 200
MAX_SCORES = 60
MAX_VALUES = 12
MAX_DRIFTS = 40
_A_LOT, _SOME = 0.25, 0.1
"""Population stability indexes from which on a shift is one (Siddiqi 2006)."""


@dataclass(frozen=True)
class Told:
    """Everything that the page says and shows."""

    version: DatasetVersion
    before: DatasetVersion | None
    levels: Sequence[tuple[str, int, int]]
    """(step, found, kept)."""
    unclaimed: Mapping[str, int]
    """Files at the source that are part of no sample, by why."""
    num_unread: int
    """Increments of which something is gone, so that they are not in the counts."""
    contents: Contents
    losses: Losses
    limits: Sequence[Limit]
    drift: Drift | None
    galleries: Galleries
    settings: Mapping[str, Json]

    @property
    def num_found(self) -> int:
        """How many samples came in, in all increments."""
        return self.levels[0][1] if self.levels else self.contents.num_samples


def page(told: Told) -> bytes:
    """Return report.html."""
    scores = _scores(told)
    html = (
        environment()
        .from_string(_TEMPLATE.read_text(encoding="utf-8"))
        .render(
            base_style=base_style(),
            told=told,
            facts=told.version.artifact.manifest.facts,
            reason_words=reason_words,
            score_words=score_words,
            number=_number,
            size=_size,
            pretty=pretty,
            tiles=_tiles(told),
            funnel=_funnel(told),
            losses=ranked(told.losses)[:MAX_REASONS],
            num_losses=len(told.losses.counts),
            scores=[one for one in scores if one.drawn is not None],
            constant=[one for one in scores if one.drawn is None],
            max_scores=MAX_SCORES,
            groups=_groups(told),
            splits=[name for name in SPLITS if told.contents.by_split[name]],
            labels=_labels(told.contents),
            drifts=[_drawn_drift(one) for one in (told.drift.scores if told.drift else ())],
            max_drifts=MAX_DRIFTS,
        )
    )
    return html.encode()


def facts(told: Told) -> dict[str, Json]:
    """Return the numbers of the page as JSON with stable keys."""
    contents, drift = told.contents, told.drift
    losses: list[Json] = [
        {
            "step": loss.step,
            "status": loss.status,
            "rule": loss.rule,
            "reason": loss.reason,
            "num": num,
        }
        for loss, num in ranked(told.losses)
    ]
    levels: list[Json] = [
        {"step": step, "found": found, "kept": kept} for step, found, kept in told.levels
    ]
    return {
        "dataset": str(told.version),
        "before": str(told.before) if told.before else None,
        "num_found": told.num_found,
        "num_kept": contents.num_samples,
        "by_split": dict(sorted(contents.by_split.items())),
        "parts": {
            name: {"num": num, "bytes": contents.part_bytes[name]}
            for name, num in sorted(contents.parts.items())
        },
        "hours": {"audio": _hours(contents, "audio"), "video": _hours(contents, "video")},
        **{name: dict(sorted(contents.values[name].items())) for name in FIELDS},
        "levels": levels,
        "losses": losses,
        "unclaimed": dict(told.unclaimed),
        "num_increments_not_read": told.num_unread,
        "scores": {one.name: one.to_json() for one in _scores(told)},
        "drift": None if drift is None else _drift_json(drift),
        "examples": {
            "kept": {
                name: [card.key for card in cards] for name, cards in told.galleries.kept.items()
            },
            "lost": {
                name: [card.key for card in cards] for name, cards in told.galleries.lost.items()
            },
            "pairs": {
                name: [[pair.lost.key, pair.twin] for pair in pairs]
                for name, pairs in told.galleries.pairs.items()
            },
        },
        "settings": dict(told.settings),
    }


def ranked(losses: Losses) -> list[tuple[Loss, int]]:
    """Return what was lost, the most first."""
    return sorted(losses.counts.items(), key=lambda one: (-one[1], one[0].group, one[0].rule))


@dataclass(frozen=True)
class Score:
    """A score of kept samples and of those left out, and its drawing."""

    name: str
    kinds: Mapping[str, Sketch]
    """`kept`, `refused` by a limit of this score, `otherwise` left out."""
    limits: Sequence[Limit]
    drawn: Histogram | None
    """None where all values are the same."""

    @property
    def every(self) -> Sketch:
        """All values."""
        return union(self.kinds.values())

    def to_json(self) -> Json:
        """Return numbers by kind, and the limits."""
        kinds: dict[str, Json] = {kind: _summary(one) for kind, one in self.kinds.items()}
        limits: list[Json] = [
            {"rule": one.rule, "field": one.field, "value": one.value} for one in self.limits
        ]
        return {**kinds, "limits": limits}


def _scores(told: Told) -> list[Score]:
    """Return the scores, those with limits first."""
    kept, losses = told.contents.scores, told.losses
    found = []
    for name in sorted(kept.keys() | losses.score_names()):
        limits = [limit for limit in told.limits if limit.score == name]
        rules = {limit.rule for limit in limits}
        refused, otherwise = losses.sketches_of(name, rules)
        given = {"kept": kept.get(name, Sketch()), "refused": refused, "otherwise": otherwise}
        kinds = {kind: sketch for kind, sketch in given.items() if sketch.num}
        if not kinds:
            continue
        is_constant = len(union(kinds.values()).values) == 1 and not limits
        drawn = None if is_constant else stacked(kinds, limits)
        found.append(Score(name, kinds, limits, drawn))
    return sorted(found, key=lambda one: (not one.limits, one.name))


def _tiles(told: Told) -> list[tuple[str, str, str]]:
    """Return (name, figure, what to know of it)."""
    contents = told.contents
    num, num_found = contents.num_samples, told.num_found
    share = f"{100 * num / num_found:.1f}% of {num_found:,} found" if num_found else "none found"
    tiles = [
        ("Samples kept", f"{num:,}", share),
        ("Left out", f"{sum(told.losses.counts.values()):,}", f"for {_num_reasons(told)}"),
        ("Parts", f"{contents.parts.total():,}", _most_common(contents.parts)),
        ("Size", _size(sum(contents.part_bytes.values())), _sizes(contents)),
    ]
    for what, name in (("Sound", "audio"), ("Film", "video")):
        hours = _hours(contents, name)
        if hours:
            mean = contents.scores[f"{name}_seconds"].mean
            tiles.append((what, _time(hours), f"on average {_number(mean)} s"))
    for title, name in (("Languages", "language"), ("Licences", "licence")):
        counts = contents.values[name]
        if counts:
            tiles.append((title, f"{len(counts):,}", _most_common(counts)))
        elif name == "licence":
            tiles.append((title, "-", "no sample states one"))
    labels = {label for label, _ in contents.by_label}
    if labels:
        tiles.append(
            ("Classes", f"{len(labels):,}", f"{num / len(labels):,.1f} samples on average")
        )
    return tiles


def _funnel(told: Told) -> list[dict[str, Any]]:
    by_step: dict[str, list[tuple[Loss, int]]] = {}
    for loss, num in sorted(ranked(told.losses), key=lambda one: one[0].status):
        by_step.setdefault(loss.step, []).append((loss, num))
    return [
        {"step": step, "found": found, "kept": kept, "losses": by_step.get(step, [])}
        for step, found, kept in told.levels
    ]


def _groups(told: Told) -> list[dict[str, Any]]:
    """Return the galleries of what was left out, the commonest reason first."""
    totals: Counter[str] = Counter()
    first: dict[str, Loss] = {}
    for loss, num in ranked(told.losses):
        totals[loss.group] += num
        first.setdefault(loss.group, loss)
    shown = told.galleries
    return [
        {
            "loss": first[group],
            "num": num,
            "cards": shown.lost.get(group, ()),
            "pairs": shown.pairs.get(group, ()),
        }
        for group, num in sorted(totals.items(), key=lambda one: (-one[1], one[0]))
        if group in shown.lost or group in shown.pairs
    ]


def _labels(contents: Contents) -> dict[str, Any]:
    """Return the largest classes by split, and what the others come to."""
    totals: Counter[str] = Counter()
    for (label, _), num in contents.by_label.items():
        totals[label] += num
    order = sorted(totals, key=lambda label: (-totals[label], label))
    rows = [
        {
            "label": label[:_MAX_LABEL_CHARS],
            "num": totals[label],
            "splits": {split: contents.by_label[label, split] for split in SPLITS},
        }
        for label in order[:MAX_LABELS]
    ]
    rest = order[MAX_LABELS:]
    return {
        "rows": rows,
        "most": totals[order[0]] if order else 1,
        "num_rest": len(rest),
        "samples_of_rest": sum(totals[label] for label in rest),
        "smallest": totals[order[-1]] if order else 0,
        "has_classes": contents.has_classes,
    }


def _drawn_drift(one: ScoreDrift) -> dict[str, Any]:
    psi = one.shift.psi
    said = (
        "a lot" if psi >= _A_LOT else "some" if psi >= _SOME else "little" if psi > 0.01 else "none"
    )
    return {"drift": one, "drawn": overlaid(one.before, one.after), "said": said}


def _drift_json(drift: Drift) -> dict[str, Json]:
    return {
        **{
            name: getattr(drift, f"num_{name}")
            for name in ("before", "after", "added", "removed", "changed", "moved")
        },
        "scores": {
            one.score: {
                "before": _summary(one.before),
                "after": _summary(one.after),
                "ks": one.shift.ks,
                "psi": one.shift.psi,
            }
            for one in sorted(drift.scores, key=lambda one: one.score)
        },
    }


def _summary(sketch: Sketch) -> dict[str, Json]:
    quantiles: dict[str, Json] = {
        f"p{100 * share:02.0f}": sketch.quantile(share) for share in (0.05, 0.5, 0.95)
    }
    return {"num": sketch.num, "mean": sketch.mean, **quantiles}


def _hours(contents: Contents, modality: str) -> float:
    sketch = contents.scores.get(f"{modality}_seconds")
    return sketch.total / 3600 if sketch else 0.0


def _num_reasons(told: Told) -> str:
    num = len({loss.reason for loss in told.losses.counts})
    return f"{num} reason{'s' if num != 1 else ''}" if num else "no reason at all"


def _sizes(contents: Contents) -> str:
    sizes = [(contents.part_bytes[name], name) for name in contents.parts]
    return ", ".join(f"{name} {_size(num)}" for num, name in sorted(sizes, reverse=True)[:3])


def _most_common(counts: Counter[str]) -> str:
    order = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    named = ", ".join(f"{value[:24]} {num:,}" for value, num in order[:3])
    return f"{named} and more" if len(order) > 3 else named


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} TB"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"


def _number(value: float) -> str:
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
